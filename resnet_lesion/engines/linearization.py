"""The backward engine: many gradients through one linearised network, block by block.

A forward pass is cut open at the blocks. Each block is then a linear map on gradients, given by three vector-Jacobian
products: of what follows the addition (post), of the branch and of the shortcut. Gradients are carried through them for
every path length at once, or along many paths at once. Only each block's input is kept at first; its graph is built
when gradients arrive, and kept only where more will follow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from math import ceil
from typing import Any

import torch
from torch import Tensor, nn

from resnet_lesion.blocks.block import Block, Forward, replaced_forwards
from resnet_lesion.engines.plan import Plan
from resnet_lesion.engines.proof import Proof
from resnet_lesion.errors import AdapterError, PathsError
from resnet_lesion.network.forward_pass import check_run_order, copies, slice_batch, version_of
from resnet_lesion.network.isolation import preserved_buffers
from resnet_lesion.network.orders import DELETED, IntArray
from resnet_lesion.network.precision import autocast_dtype, network_tolerance, relative_deviation
from resnet_lesion.network.refusals import refuse_inference_tensors
from resnet_lesion.network.residual_network import ResidualNetwork

Objective = Callable[[Tensor], Tensor]
"""Maps the model's outputs (N, ...) to one value for each image, (N,)."""


# Gradients are stacked along the batch until a tensor has about this many elements: small ones are bound by the cost of
# a call, and on a CPU large ones fall out of the caches.
_ELEMENTS = {"cpu": 2**19, "cuda": 2**25}


# How much further than outputs rounding moves gradients, which pass every layer twice and kinks besides: in a Mixer in
# bfloat16 by a quarter of the largest entry.
_ROUNDINGS = 8


# The gradients of the longest paths are so small that float32 would lose their digits and be slow, so all are carried
# multiplied by a power of two, which changes no digit of the others.
_SCALE = 2.0**40


@dataclass(frozen=True)
class _Link:
    """What the model does between two blocks, before the first or after the last."""

    leaf: Tensor
    output: Tensor


class _Handed:
    """Copies of the images as the model gets them, which it may write into, and the leaf behind them."""

    def __init__(self, x: Tensor, lanes: int) -> None:
        self.tensor = _repeated(x, lanes)
        # -0.0 changes no number that it is added to, and so often the same one takes no memory
        self.leaf = x.new_full((), -0.0).expand_as(self.tensor).requires_grad_()
        with torch.enable_grad():
            self.tensor += self.leaf
        self._version = version_of(self.tensor)

    def came_back_as(self, x: Tensor) -> bool:
        """Tell whether a block is given this very tensor, and nothing was written into it."""
        return x is self.tensor and version_of(x) == self._version


class Linearization:
    """A model's forward pass over a batch, ready to carry gradients back.

    Args:
        network: The network, in eval mode.
        inputs: (N, ...) inputs on the model's device.
        objective: What is differentiated; the images' values are summed, so each image's gradient is its own.
        args: Further arguments of the model.
        n_gradients: Roughly how many gradients will be carried at once.

    Attributes:
        scale: What all gradients are multiplied by while they are carried; divide by it in the end.

    Raises:
        AdapterError: If the model does not run its blocks once each in order.
        PathsError: If the model is a plain network, or its blocks are not in a row.
        ValueError: If the model has gradient checkpointing switched on, or weights made in inference mode.
    """

    def __init__(
        self,
        network: ResidualNetwork,
        inputs: Tensor,
        objective: Objective,
        args: tuple[object, ...] = (),
        n_gradients: int = 1,
    ) -> None:
        if any(getattr(module, "grad_checkpointing", False) for module in network.model.modules()):
            raise ValueError(
                "expected a model without gradient checkpointing, which runs its blocks again in backward. Call "
                "model.set_grad_checkpointing(False); memory_limit bounds memory here."
            )
        network.require_skips()
        refuse_inference_tensors(network.model)
        n, lanes = len(inputs), _lanes(inputs, n_gradients)
        self._network, self._n_gradients = network, n_gradients
        self._graphs: dict[int, BlockGraph] = {}
        self._block_inputs: list[Tensor] = []
        # before block 0, between the blocks, after the last; None where a block's output is the next one's input
        self._links: list[_Link | None] = []
        y, handed = inputs, _Handed(inputs, lanes)
        leaves = [handed.leaf]  # the model's input, and the blocks' outputs
        ran: list[int] = []

        def cut_open(i: int, forward: Forward) -> Forward:
            def run(x: Tensor) -> Tensor:
                nonlocal y, handed
                ran.append(i)
                is_same = handed.came_back_as(x)
                self._links.append(None if is_same else _Link(leaves[-1], x))
                self._block_inputs.append(y if is_same else x.detach()[:n])
                with torch.no_grad():
                    y = forward(self._block_inputs[-1])
                handed = _Handed(y, lanes)
                leaves.append(handed.leaf)
                return handed.tensor

            return run

        # as gradients see them: not compiled
        forwards = {block.module: cut_open(i, block.module.forward) for i, block in enumerate(network.blocks)}
        with torch.enable_grad(), replaced_forwards(forwards):
            output = network.model(handed.tensor, *(_repeated_arg(arg, n, lanes) for arg in args))
        check_run_order(ran, network.layers)
        _require_a_row(network, leaves, [*(link.output if link else None for link in self._links), output])
        self.scale = _SCALE
        self._head = _pull_back(output, leaves[-1], at_output(output[:n], objective)[None] * _SCALE)

    def by_length(self, max_length: int, first: int = 0) -> Iterator[tuple[int, Tensor]]:
        """Carry the sums over all paths of each length from the last block back to block ``first``.

        With post, branch and shortcut Jacobians D, J and S, the gradient is the product over the blocks of
        D (S + z J), a polynomial in z whose coefficient of z^k is the sum over all paths of length k.

        Args:
            max_length: The longest paths to carry.
            first: The block to stop at.

        Yields:
            A block's index and the gradients at its input, (lengths, N, ...), lengths counting from 0.
        """
        gradients = self._head
        for i in reversed(range(first, len(self._network))):
            with torch.enable_grad():
                graph = BlockGraph(self._network.blocks[i], self._block_inputs[i], len(gradients))
            gradients = graph.post(gradients)
            branch = graph.branch(gradients[:max_length])
            longer = branch.new_zeros(len(branch) + 1, *branch.shape[1:])
            graph.shortcut(gradients, longer[: len(gradients)])
            longer[1:] += branch
            yield i, longer
            gradients = self.before(i, longer) if i > first else longer

    def along(self, plan: Plan, first: int = 0) -> Tensor:
        """Carry gradients along single paths back to the input of block ``first``.

        Args:
            plan: The paths as order rows (a block's index for its branch, -1 for its shortcut) over the blocks from
                ``first``, last block first: paths that agree on the last blocks share the work there.
            first: The block to stop at.

        Returns:
            (n_distinct_paths, N, ...) gradients; ``plan.stream`` tells which is whose.
        """
        gradients = self._head
        for i, forks, n_streams in zip(
            reversed(range(first, len(self._network))), plan.forks, plan.n_streams[1:], strict=True
        ):
            if i not in self._graphs:  # kept for the next set of paths
                with torch.enable_grad():
                    self._graphs[i] = BlockGraph(
                        self._network.blocks[i], self._block_inputs[i], max(1, self._n_gradients // 2)
                    )
            graph = self._graphs[i]
            arrived = graph.post(gradients)
            gradients = arrived.new_empty(n_streams, *self._block_inputs[i].shape)
            filled = 0
            for fork in forks:
                pull_back = graph.shortcut if fork.block == DELETED else graph.branch
                taken = sum(stop - start for start, stop in fork.runs)
                # one run needs no copy; on many, a copy costs less than a call for each
                chosen = [arrived[start:stop] for start, stop in fork.runs]
                pull_back(chosen[0] if len(chosen) == 1 else torch.cat(chosen), gradients[filled : filled + taken])
                filled += taken
            if i > first:
                gradients = self.before(i, gradients)
        return gradients

    def together(self) -> Tensor:
        """Carry the sum over all paths back to the model's input, (N, ...): the ordinary gradient."""
        gradients = self._head
        for i in reversed(range(len(self._network))):
            with torch.enable_grad():
                graph = BlockGraph(self._network.blocks[i], self._block_inputs[i], 1)
            at_sum = graph.post(gradients)
            gradients = graph.branch(at_sum)
            gradients += graph.shortcut(at_sum, torch.empty_like(gradients))
            gradients = self.before(i, gradients)
        return gradients[0] / self.scale

    def before(self, i: int, gradients: Tensor) -> Tensor:
        """Carry gradients from the input of block i to the block before it, or to the model's input for i = 0."""
        link = self._links[i]
        return gradients if link is None else _pull_back(link.output, link.leaf, gradients)

    def to_wrt(self, wrt: int | None, gradients: Tensor) -> Tensor:
        """Carry gradients from the input of block ``wrt or 0`` on to the model's input if ``wrt`` is None."""
        return gradients if wrt is not None else self.before(0, gradients)


class BlockGraph:
    """One block's vector-Jacobian products at a given input, by what its adapter says.

    Args:
        block: The block.
        x: (N, ...) its input.
        n_gradients: Roughly how many gradients will be carried at once.

    Raises:
        AdapterError: If the branch's exit does not run once.
    """

    def __init__(self, block: Block, x: Tensor, n_gradients: int) -> None:
        self._leaf = _repeated(x, _lanes(x, n_gradients)).requires_grad_()
        with block.kept_residual() as take_residual:
            block.module.forward(self._leaf)
        self._branch = block.scale(take_residual())
        self._shortcut = None if block.has_identity_shortcut else block.shortcut(self._leaf)
        self._sum: Tensor | None = None
        if block.branch.post is not None:
            skipped = self._leaf if self._shortcut is None else self._shortcut
            self._sum = (skipped + self._branch).detach().requires_grad_()
            self._post = block.post(self._sum.clone())  # a leaf cannot be changed in place

    def post(self, gradients: Tensor) -> Tensor:
        """Carry gradients (K, N, ...) from the block's output to the sum of shortcut and branch."""
        return gradients if self._sum is None else _pull_back(self._post, self._sum, gradients)

    def branch(self, gradients: Tensor, out: Tensor | None = None) -> Tensor:
        """Carry gradients from the sum through the branch to the block's input."""
        return _pull_back(self._branch, self._leaf, gradients, out)

    def shortcut(self, gradients: Tensor, out: Tensor) -> Tensor:
        """Carry gradients from the sum through the shortcut to the block's input."""
        if self._shortcut is None:
            return out.copy_(gradients)
        return _pull_back(self._shortcut, self._leaf, gradients, out)


def full_gradient(
    network: ResidualNetwork, inputs: Tensor, objective: Objective, args: tuple[object, ...], wrt: int | None
) -> Tensor:
    """Return the ordinary gradient at the model's input, or at block ``wrt``'s, by one plain backward pass."""
    refuse_inference_tensors(network.model)
    leaves = [inputs.detach().clone().requires_grad_()]

    def attach(_module: nn.Module, block_args: tuple[Any, ...]) -> tuple[Any, ...]:
        leaves[:] = [block_args[0].detach().requires_grad_()]
        return leaves[0].clone(), *block_args[1:]

    with ExitStack() as stack, torch.enable_grad():
        if wrt is not None:
            stack.enter_context(network.blocks[wrt].module.register_forward_pre_hook(attach))
        output = network.model(*copies(leaves[0], *args))
    return _pull_back(output, leaves[0], at_output(output, objective)[None])[0]


def prove_gradients(network: ResidualNetwork, proof: Proof, inputs: Tensor, *args: object) -> None:
    """Try on the first image whether all paths together carry the ordinary gradient, before gradients are taken.

    Hooks may change gradients, detach what they add, or read what another block has left, of which a forward pass shows
    nothing. It costs about as much as a proof does.

    Args:
        network: The network, in eval mode.
        proof: What its forward pass showed.
        inputs: (N, ...) the first images of the data.
        *args: Further arguments of the model.

    Raises:
        AdapterError: If they do not.
        PathsError: If the images have no gradients of their own.
    """
    proof.require_gradients()
    blocks = {block.module for block in network.blocks}
    for name, module in network.model.named_modules():
        # such a hook keeps what arrived at the output until it has passed the input, and other gradients come between
        if module._backward_hooks and not blocks.isdisjoint(module.modules()):
            raise AdapterError(
                f"expected blocks without hooks on their gradients, got one on {name or type(module).__name__!r}: it "
                "would see those of single paths. Remove it."
            )
    x, *more = slice_batch(proof.at_least(1), network.to_device(inputs), *args)

    def first(output: Tensor) -> Tensor:
        return output.flatten(1)[:, 0]

    with preserved_buffers(network.model):
        found = Linearization(network, x, first, tuple(more)).together()
        # not from the buffers that the first began with: no later pass does either
        expected = full_gradient(network, x, first, tuple(more), None)
    deviation = relative_deviation(found, expected)
    # NaN is none: what adds gradients up refuses those that leave the dtype's range
    if deviation > _ROUNDINGS * network_tolerance(network.device, network.dtype):
        raise AdapterError(
            f"expected the ordinary gradient from all paths together, got one that differs by {deviation:.2g}, "
            "relative to the largest entry: an adapter is wrong, hooks on a block change gradients or read another "
            "block, or the model keeps something from one call to the next. Mend that, or, where the dtype is too "
            "coarse, use a copy in float64, model.double()."
        )


def at_output(output: Tensor, objective: Objective) -> Tensor:
    """Return the objective's gradient at the model's output, (N, ...), in float32 at least.

    From here on, everything is kept in float32 at least: half precision has too few digits and too small a range.
    """
    leaf = output.detach().requires_grad_()
    with torch.enable_grad():
        total = objective(leaf).sum()
    (gradient,) = torch.autograd.grad(total, leaf, allow_unused=True, materialize_grads=True)
    return gradient if gradient.dtype == torch.float64 else gradient.float()


def in_range(gradients: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
    """Bring gradients into the range of a dtype.

    Args:
        gradients: (K, N, ...) gradients.
        dtype: The dtype that a graph takes.

    Returns:
        The gradients in that dtype and, where the graph computes in float16, whose numbers range from 6e-8 to 65504,
        (K, N) exponents e: each image's largest entry was brought close to 1 by division by 2^e, which changes no
        digit. Else None.
    """
    if torch.float16 not in (dtype, autocast_dtype(gradients.device)):
        return gradients.to(dtype), None
    exponents = torch.frexp(gradients.flatten(2).abs().amax(2)).exponent
    return torch.ldexp(gradients, _over(-exponents, gradients)).to(dtype), exponents


def path_plan(paths: IntArray) -> Plan:
    """Plan the work that paths, as order rows in forward order, share from the last block on."""
    return Plan(paths[:, ::-1])


def _pull_back(output: Tensor, leaf: Tensor, gradients: Tensor, out: Tensor | None = None) -> Tensor:
    """Multiply gradients (K, N, ...) at an output by its Jacobian; the graph holds several copies of the N images."""
    n = gradients.shape[1]
    lanes = len(leaf) // n
    result = gradients.new_empty(*gradients.shape[:2], *leaf.shape[1:]) if out is None else out
    for start in range(0, len(gradients), lanes):
        group, exponents = in_range(gradients[start : start + lanes], output.dtype)
        group = group.flatten(0, 1)
        if len(group) < len(output):
            group = torch.cat([group, group.new_zeros(len(output) - len(group), *group.shape[1:])])
        (pulled,) = torch.autograd.grad(
            output, leaf, group, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        stop = min(start + lanes, len(gradients))
        found = pulled[: (stop - start) * n].reshape(stop - start, *result.shape[1:])
        if exponents is not None:
            found = torch.ldexp(found.to(result.dtype), _over(exponents, found))
        result[start:stop] = found
    return result


def _over(numbers: Tensor, gradients: Tensor) -> Tensor:
    """Give one number for each of (K, N) the dimensions of gradients (K, N, ...)."""
    return numbers.reshape(*numbers.shape, *[1] * (gradients.ndim - 2))


def _require_a_row(network: ResidualNetwork, leaves: list[Tensor], fed: list[Tensor | None]) -> None:
    """Refuse a model in which something bypasses the blocks: each may be fed only by the one before it."""
    for i, value in enumerate(fed):
        if value is None:
            continue
        sources = _leaves_behind(value)
        if any(id(other) in sources for other in leaves if other is not leaves[i]):
            where = repr(network.layers[i]) if i < len(network) else "the model's output"
            raise PathsError(
                f"expected blocks in a row, but what reaches {where} does not come from the block before it alone: "
                "some paths bypass the blocks (as in cross stages and parallel streams), and their lengths cannot be "
                "told apart. Deletion, Reorder, evaluate and routed work on this model."
            )


def _leaves_behind(output: Tensor) -> set[int]:
    """Return the ids of the leaves that a value was computed from."""
    found, seen, todo = set[int](), set[Any](), [output.grad_fn]
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        found.add(id(getattr(node, "variable", None)))
        todo += [function for function, _ in node.next_functions]
    return found


def _lanes(x: Tensor, n_gradients: int) -> int:
    """Return how many copies of the images to put into one graph, so that the last group is nearly full too."""
    largest = max(1, min(_ELEMENTS.get(x.device.type, 2**22) // x.numel(), ceil(n_gradients / 4)))
    return ceil(n_gradients / ceil(n_gradients / largest))


def _repeated(x: Tensor, lanes: int) -> Tensor:
    return x.detach().clone() if lanes == 1 else x.detach().repeat(lanes, *[1] * (x.ndim - 1))


def _repeated_arg(arg: object, n: int, lanes: int) -> object:
    if not isinstance(arg, Tensor):
        return arg
    return _repeated(arg, lanes if arg.ndim > 0 and len(arg) == n else 1)
