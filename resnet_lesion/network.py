"""A model seen as n residual blocks in a row, any of which can be deleted, moved or routed around."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from resnet_lesion.block import Block, Forward, replaced_forwards
from resnet_lesion.branch import HOW_TO, Branch, did_you_mean, find_branch, is_block, known_blocks
from resnet_lesion.chain import Chain
from resnet_lesion.errors import AdapterError
from resnet_lesion.isolation import isolated
from resnet_lesion.orders import DELETED, as_orders
from resnet_lesion.routing import as_path, route

_Note = Callable[[int, Tensor, Tensor], None]


@dataclass(frozen=True)
class Trace:
    """What one plain forward pass showed: the shape of each block's input and output, without the batch."""

    input_shapes: tuple[tuple[int, ...], ...]
    output_shapes: tuple[tuple[int, ...], ...]
    output: Tensor


class ResidualNetwork:
    """A model whose residual blocks are known; made by :func:`wrap`.

    Attributes:
        model: The model itself, unchanged.
        blocks: Its residual blocks, in forward order.
    """

    def __init__(self, model: nn.Module) -> None:
        model = _analysable(model)
        self.model = model
        names = {module: name for name, module in model.named_modules()}
        blocks: list[Block] = []
        self._chains: list[Chain] = []
        self._parents: list[str] = []
        for module, name in names.items():
            found = find_branch(module) if is_block(module) else None
            if isinstance(found, Branch):
                blocks.append(Block(name, module, found))
                self._parents.append(name.rpartition(".")[0])
            elif found is not None:
                # a module that another network has open keeps its links, so that contexts nest
                opened = vars(found.module).get("forward")
                chain = opened if isinstance(opened, Chain) else found
                self._chains.append(chain)
                where = names[chain.module]
                for key, link in chain.links.items():
                    branch = find_branch(link) if is_block(link) else None
                    if isinstance(branch, Branch):
                        blocks.append(Block(".".join(filter(None, (where, key))), link, branch))
                        self._parents.append(where.rpartition(".")[0])
        if not blocks:
            raise TypeError(_no_blocks(model))
        self.blocks: tuple[Block, ...] = tuple(blocks)

    def __len__(self) -> int:
        return len(self.blocks)

    def __repr__(self) -> str:
        return (
            f"ResidualNetwork({type(self.model).__name__}, {len(self)} blocks: {self.layers[0]} ... {self.layers[-1]})"
        )

    @property
    def layers(self) -> tuple[str, ...]:
        """The blocks' names, in forward order."""
        return tuple(block.layer for block in self.blocks)

    @property
    def branches(self) -> tuple[Branch, ...]:
        """What each block's residual branch is made of, in forward order."""
        return tuple(block.branch for block in self.blocks)

    @property
    def stage(self) -> NDArray[np.int64]:
        """The stage of each block, counted from 0: blocks that are children of one module share one."""
        number = {parent: i for i, parent in enumerate(dict.fromkeys(self._parents))}
        return np.array([number[parent] for parent in self._parents], dtype=np.int64)

    @property
    def is_downsampling(self) -> NDArray[np.bool_]:
        """Whether each block's shortcut is a projection (timm's ``downsample``) rather than the identity."""
        return np.array([not block.has_identity_shortcut for block in self.blocks])

    @property
    def device(self) -> torch.device:
        """The device of the model's parameters."""
        return self._reference.device

    @property
    def dtype(self) -> torch.dtype:
        """The floating-point type of the model's parameters."""
        return self._reference.dtype

    def index(self, layers: str | int | Iterable[str | int]) -> list[int]:
        """Translate block names (or indices) into indices.

        Raises:
            ValueError: If there is no such block.
        """
        if isinstance(layers, str) or not isinstance(layers, Iterable):
            layers = [layers]
        known = {layer: i for i, layer in enumerate(self.layers)}
        found: list[int] = []
        for layer in layers:
            if isinstance(layer, str):
                if layer not in known:
                    raise ValueError(
                        f"expected the name of a block, got {layer!r}.{did_you_mean(layer, known)} "
                        f"network.layers lists all {len(self)}."
                    )
                found.append(known[layer])
            elif not isinstance(layer, int | np.integer) or not 0 <= layer < len(self):
                raise ValueError(f"expected a block's name, or its index from 0 to {len(self) - 1}, got {layer!r}.")
            else:
                found.append(int(layer))
        return found

    @contextmanager
    def lesioned(
        self, *, delete: str | int | Iterable[str | int] | None = None, order: ArrayLike | None = None
    ) -> Iterator[nn.Module]:
        """Run any code on the lesioned model.

        A deleted block runs its shortcut and ``post`` only; its branch is not computed. Hooks on a block see what
        happens at its position. Contexts nest.

        Args:
            delete: Names (or indices) of the blocks to delete.
            order: One order row instead: at each position the index of the block that runs there, or -1.

        Yields:
            The model, lesioned until the context ends.

        Raises:
            ValueError: If a block does not exist, the row does not fit, or not exactly one of the two is given.

        Example:
            >>> import resnet_lesion as rl, timm, torch
            >>> network = rl.wrap(timm.create_model("resnet18").eval())
            >>> with torch.no_grad(), network.lesioned(delete=["layer3.1"]) as model:
            ...     model(torch.zeros(1, 3, 64, 64)).shape
            torch.Size([1, 1000])
        """
        if (delete is None) == (order is None):
            raise ValueError("expected exactly one of delete=[...] and order=[...].")
        if delete is not None:
            row = np.arange(len(self))
            row[self.index(delete)] = DELETED
        else:
            row = as_orders([order], len(self))[0]
        whole = self.forwards()
        forwards = {
            block.module: block.without_branch if index == DELETED else whole[index]
            for block, index in zip(self.blocks, row, strict=True)
        }
        with self._opened(), replaced_forwards(forwards):
            yield self.model

    @contextmanager
    def routed(self, path: ArrayLike) -> Iterator[nn.Module]:
        """Run any code with backward flowing along one path only; forward values are unchanged to the last bit.

        Args:
            path: A 1 for each block whose branch the gradient takes, a 0 where it takes the shortcut: (n_blocks,).

        Yields:
            The model, routed until the context ends.

        Raises:
            ValueError: If the path does not fit.

        Example:
            >>> import resnet_lesion as rl, timm, torch
            >>> network = rl.wrap(timm.create_model("resnet18").eval())
            >>> x = torch.zeros(1, 3, 64, 64, requires_grad=True)
            >>> with network.routed([1, 0, 1, 0, 1, 0, 1, 0]) as model:
            ...     model(x).sum().backward()
        """
        self.require_skips()
        with ExitStack() as stack:
            stack.enter_context(self._opened())
            route(stack, self.blocks, as_path(path, len(self)))
            yield self.model

    @contextmanager
    def isolated(self) -> Iterator[None]:
        """Put the model into eval mode and open its chains; on the way out it is as it was, and so is randomness."""
        with isolated(self.model), self._opened():
            yield

    def require_skips(self) -> None:
        """Refuse a plain network, which has one path only.

        Raises:
            ValueError: If a block has no skip.
        """
        plain = next((block.layer for block in self.blocks if not block.branch.skip), None)
        if plain is not None:
            raise ValueError(
                f"expected a residual network, but {plain!r} has no skip: a plain network has a single path. "
                "Deletion, Reorder and evaluate work on it."
            )

    def forwards(self) -> list[Forward]:
        """Return each block's own forward, as it stands now."""
        return [block.module.forward for block in self.blocks]

    def verify(self, inputs: Tensor) -> float:
        """Check that every block computes ``post(shortcut(x) + scale(branch(x)))`` on these inputs.

        Args:
            inputs: What the model takes, (N, ...).

        Returns:
            The largest deviation over all blocks, relative to the block's largest output; 0.0 if all agree to the
            last bit.

        Raises:
            AdapterError: If a block deviates, its exit runs more or less than once, or the blocks do not run once
                each in order.
            ValueError: If the model does not take these inputs, or they are not finite.
        """
        if not len(inputs) or not torch.isfinite(inputs).all():
            raise ValueError(
                f"expected at least one input to verify the blocks on, and only finite values, "
                f"got shape {tuple(inputs.shape)}{' with NaN or infinity' if len(inputs) else ''}."
            )
        inputs, exits, deviations = self.to_device(inputs), dict[int, list[Tensor]](), list[float]()

        def keep(i: int, _module: nn.Module, _args: Any, output: Tensor) -> None:
            exits.setdefault(i, []).append(output.clone())  # the block may add the shortcut to it in place

        def check(i: int, x: Tensor, y: Tensor) -> None:
            block, residuals = self.blocks[i], exits.pop(i, [])
            if len(residuals) != 1:
                raise AdapterError(
                    f"block {block.layer!r} ({type(block.module).__name__}) ran its branch exit {block.branch.exit!r} "
                    f"{len(residuals)} times; expected once. Name a module that only the branch uses; see {HOW_TO}."
                )
            try:
                expected = block.combine(x, residuals[0])
            except AdapterError:
                raise
            except RuntimeError as reason:
                raise AdapterError(
                    f"block {block.layer!r} ({type(block.module).__name__}) cannot be put together as {block.branch} "
                    f"says: {reason}. Correct its adapter; see {HOW_TO}."
                ) from reason
            if expected.shape != y.shape:
                raise AdapterError(
                    f"block {block.layer!r}: the adapter makes shape {tuple(expected.shape)}, "
                    f"the block {tuple(y.shape)}. Correct its adapter; see {HOW_TO}."
                )
            error, size = float((expected - y).abs().max()), float(y.abs().max())
            deviation = error / size if size else error
            # `not <=` so that NaN fails too
            if not deviation <= 16 * torch.finfo(y.dtype).eps:
                raise AdapterError(
                    f"block {block.layer!r} ({type(block.module).__name__}) is not post(shortcut(x) + branch(x)) as "
                    f"{block.branch} says: relative deviation {deviation:.3g}. Correct its adapter; see {HOW_TO}."
                )
            deviations.append(deviation)

        with isolated(self.model), torch.no_grad():
            deviations += self._verify_chains(inputs)
        with ExitStack() as stack, self.isolated(), torch.no_grad():
            for i, block in enumerate(self.blocks):
                for name in block.entries:
                    block.part(name)  # must exist
                handle = block.part(block.branch.exit).register_forward_hook(partial(keep, i))
                stack.callback(handle.remove)
            self._watched(inputs, check)
        return max(deviations)

    def trace(self, inputs: Tensor, *args: object) -> Trace:
        """Run the whole model once and note the shape of every block's input and output.

        Args:
            inputs: What the model takes, (N, ...).
            *args: Further arguments of the model.

        Raises:
            AdapterError: If the blocks do not run once each in order on one tensor that they leave alone, or the model
                returns no (N, ...) tensor.
            ValueError: If the model does not take these inputs.
        """
        shapes: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
        inputs = self.to_device(inputs)
        with self.isolated(), torch.no_grad():
            output = self._watched(
                inputs, lambda _i, x, y: shapes.append((tuple(x.shape[1:]), tuple(y.shape[1:]))), *args
            )
        if not isinstance(output, Tensor) or output.shape[:1] != inputs.shape[:1]:
            got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise AdapterError(
                f"expected a model that returns one tensor with a row for each of {len(inputs)} inputs, got {got}. "
                "Wrap a classifier, not a feature extractor."
            )
        return Trace(tuple(s[0] for s in shapes), tuple(s[1] for s in shapes), output)

    def to_device(self, inputs: Tensor) -> Tensor:
        """Move inputs to the model's device and, if they are floating-point, to its dtype."""
        dtype = self.dtype if inputs.is_floating_point() else inputs.dtype
        return inputs.to(self.device, dtype, non_blocking=True)

    @contextmanager
    def _opened(self) -> Iterator[None]:
        with replaced_forwards({chain.module: chain for chain in self._chains}):
            yield

    def _verify_chains(self, inputs: Tensor) -> list[float]:
        if not self._chains:
            return []
        seen: list[tuple[Chain, Tensor, tuple[Any, ...], dict[str, Any], Tensor]] = []

        def keep(chain: Chain, _module: nn.Module, args: tuple[Any, ...], named: dict[str, Any], y: Tensor) -> None:
            seen.append((chain, args[0].clone(), args[1:], named, y.clone()))

        with ExitStack() as stack:
            for chain in self._chains:
                stack.callback(chain.module.register_forward_hook(partial(keep, chain), with_kwargs=True).remove)
            self._run(inputs)
        deviations = []
        for chain, x, args, named, y in seen:
            try:
                difference, size = float((chain(x, *args, **named) - y).abs().max()), float(y.abs().max())
            except RuntimeError as error:
                raise AdapterError(
                    f"{type(chain.module).__name__} cannot run the links {list(chain.links)} in a row: {error}. "
                    f"Correct its adapter; see {HOW_TO}."
                ) from error
            deviations.append(difference / size if size else difference)
            if not deviations[-1] <= 16 * torch.finfo(y.dtype).eps:
                raise AdapterError(
                    f"{type(chain.module).__name__} does not compute the links {list(chain.links)} one after another: "
                    f"relative deviation {deviations[-1]:.3g}. Correct its adapter; see {HOW_TO}."
                )
        return deviations

    def _run(self, inputs: Tensor, *args: object) -> object:
        try:
            return self.model(inputs, *args)
        except (AdapterError, torch.OutOfMemoryError):
            raise
        except (RuntimeError, AssertionError) as error:
            raise ValueError(
                f"the model does not take inputs of shape {tuple(inputs.shape)}: {error}. "
                f"Expected (N, channels, height, width) as the model was built for{_expected_input(self.model)}."
            ) from error

    def _watched(self, inputs: Tensor, note: _Note, *args: object) -> object:
        ran, versions = list[int](), dict[int, int]()

        def before(i: int, _module: nn.Module, given: tuple[Tensor, ...], named: dict[str, object]) -> None:
            if len(given) != 1 or named:
                raise AdapterError(
                    f"expected block {self.layers[i]!r} to be called with one tensor, "
                    f"got {len(given)} positional arguments and {sorted(named) or 'no keywords'}."
                )
            versions[i] = version_of(given[0])

        def after(i: int, _module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
            ran.append(i)
            if version_of(given[0]) != versions[i]:
                raise overwrites_input(self.blocks[i])
            note(i, given[0], output)

        with ExitStack() as stack:
            for i, block in enumerate(self.blocks):
                stack.callback(block.module.register_forward_pre_hook(partial(before, i), with_kwargs=True).remove)
                stack.callback(block.module.register_forward_hook(partial(after, i)).remove)
            output = self._run(inputs, *args)
        check_run_order(ran, self.layers)
        return output

    @property
    def _reference(self) -> Tensor:
        for tensor in [*self.model.parameters(), *self.model.buffers()]:
            if tensor.is_floating_point():
                return tensor
        return torch.empty(0)


def wrap(model: nn.Module | ResidualNetwork) -> ResidualNetwork:
    """See a model as a row of residual blocks. Nothing in the model changes.

    Args:
        model: Any module with blocks that an adapter knows, for instance a timm ResNet, on any device. A model from
            ``torch.compile`` is unwrapped. A :class:`ResidualNetwork` comes back as it is.

    Returns:
        The network, ready for analysis.

    Raises:
        TypeError: If the model has no known block, or is something that hooks cannot follow (DataParallel, an FX
            graph, TorchScript, a module compiled in place).

    Example:
        >>> import resnet_lesion as rl, timm
        >>> network = rl.wrap(timm.create_model("resnet18"))
        >>> network.layers[:3]
        ('layer1.0', 'layer1.1', 'layer2.0')
        >>> network.branches[2]
        Branch(entry='conv1', exit='bn2', shortcut='downsample', preact=None, scale=None, post='act2', skip=True)
    """
    return model if isinstance(model, ResidualNetwork) else ResidualNetwork(model)


def check_run_order(ran: Sequence[int], layers: Sequence[str]) -> None:
    """Refuse a model that does not run its blocks once each, in the order of their names."""
    if list(ran) == list(range(len(layers))):
        return
    counts = Counter(ran)
    for i, layer in enumerate(layers):
        if counts[i] != 1:
            raise AdapterError(f"block {layer!r} ran {counts[i]} times in one forward pass; expected once.")
    raise AdapterError(f"the blocks ran in the order {[layers[i] for i in ran]}; expected the order of their names.")


def version_of(x: Tensor) -> int:
    """Return how often a tensor was written to; always 0 in inference mode, where nobody counts."""
    return 0 if x.is_inference() else x._version


def overwrites_input(block: Block) -> AdapterError:
    """Make the error for a block that works in place on its input.

    Its shortcut hands on what the branch left there, so that the block without its branch is another function.
    """
    return AdapterError(
        f"block {block.layer!r} ({type(block.module).__name__}) overwrites its input, which its shortcut and other "
        "lesions still need. Let the branch begin out of place: inplace=False."
    )


def _analysable(model: object) -> nn.Module:
    if not isinstance(model, nn.Module):
        hint = f" Create it first: timm.create_model({model!r})." if isinstance(model, str) else ""
        raise TypeError(
            f"expected a torch.nn.Module or a ResidualNetwork, got {type(model).__name__} {model!r:.60}.{hint}"
        )
    original = getattr(model, "_orig_mod", None)
    if isinstance(original, nn.Module):  # torch.compile's OptimizedModule ignores what is changed in its blocks later
        model = original
    for name, module in model.named_modules():
        where = f"submodule {name!r}" if name else "the model"
        if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
            raise TypeError(
                f"expected plain modules, but {where} is {type(module).__name__}, whose replicas would run without the "
                "lesions. Pass its .module."
            )
        if isinstance(module, torch.fx.GraphModule):
            raise TypeError(
                f"expected modules that call their blocks, but {where} is an FX graph ({type(module).__name__}), "
                "which ran its blocks when it was traced. Pass the model that it was made from."
            )
        if isinstance(module, torch.jit.ScriptModule):
            raise TypeError(f"{where} is TorchScript, which ignores lesions. Pass the model that it was made from.")
        if getattr(module, "_orig_mod", None) is not None or getattr(module, "_compiled_call_impl", None) is not None:
            raise TypeError(f"{where} is compiled and would ignore lesions. Pass the model before it is compiled.")
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is None:
            raise TypeError(
                f"{where} ({type(module).__name__}) normalises with the statistics of its batch even in eval mode, "
                "so one image's result depends on the others'. Use track_running_stats=True."
            )
    return model


def _no_blocks(model: nn.Module) -> str:
    own = Counter(
        type(module).__qualname__
        for module in model.modules()
        if module is not model
        and not type(module).__module__.startswith("torch.nn")
        and any(True for _ in module.children())
    )
    seen = ", ".join(name for name, _ in own.most_common(5)) or "only torch.nn modules"
    return (
        f"{type(model).__qualname__} has no residual block that an adapter knows. Its own classes: {seen}. "
        f"Known block classes: {known_blocks()}. To add one, see {HOW_TO}."
    )


def _expected_input(model: nn.Module) -> str:
    size = (getattr(model, "pretrained_cfg", None) or {}).get("input_size")
    return f", for instance (N, {', '.join(map(str, size))})" if size else ""
