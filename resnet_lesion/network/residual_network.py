"""A model seen as n residual blocks in a row, any of which can be deleted, moved or routed around."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from resnet_lesion.blocks.block import Block, Forward, in_place_of_forward, replaced_forwards
from resnet_lesion.blocks.branch import Branch
from resnet_lesion.blocks.chain import Chain
from resnet_lesion.blocks.registry import find_branch, is_block, no_blocks
from resnet_lesion.checks import did_you_mean
from resnet_lesion.errors import AdapterError, PathsError
from resnet_lesion.network.forward_pass import as_output, watch
from resnet_lesion.network.isolation import isolated, reserved
from resnet_lesion.network.orders import DELETED, as_orders
from resnet_lesion.network.paths import as_path
from resnet_lesion.network.refusals import analysable, require_whole_weights
from resnet_lesion.network.routing import route
from resnet_lesion.network.verification import verified_pass
from resnet_lesion.network.weights import execution_device, floating_dtype


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
        chains: The modules that hold several blocks in one forward, which are opened while it is analysed.
        attrs: What results say about the network beyond what its model shows; each a str or a number.

    Example:
        >>> import resnet_lesion as rl, timm, torch
        >>> network = rl.wrap(timm.create_model("resnet18"))
        >>> len(network), network.layers[2], int(network.stage[2]), bool(network.is_downsampling[2])
        (8, 'layer2.0', 1, True)
        >>> network.branches[2].shortcut, network.index("layer2.0"), network.device.type, network.dtype
        ('downsample', [2], 'cpu', torch.float32)
        >>> inputs = torch.randn(2, 3, 64, 64)
        >>> network.verify(inputs) < 1e-3, network.trace(inputs).output_shapes[2]
        (True, (128, 8, 8))
    """

    def __init__(self, model: nn.Module) -> None:
        model = analysable(model)
        self.model = model
        self.look_up()
        self.attrs: dict[str, str] = {}

    def look_up(self) -> None:
        """Describe the blocks as they stand now: parts of the model may have been replaced since the last time.

        Raises:
            TypeError: If the model has no known block.
            AdapterError: If it has other blocks than before.
        """
        blocks, self.chains, self._parents = _blocks_of(self.model)
        before = getattr(self, "blocks", blocks)
        if [block.layer for block in blocks] != [block.layer for block in before]:
            raise AdapterError(
                f"expected the blocks that the model had when it was wrapped, {[block.layer for block in before]}, got "
                f"{[block.layer for block in blocks]}. Wrap the model again: rl.wrap(model)."
            )
        self.blocks: tuple[Block, ...] = blocks

    def __len__(self) -> int:
        return len(self.blocks)

    def __reduce__(self) -> tuple[object, ...]:
        return wrap, (self.model,)  # an adapter's functions may have no name to be pickled by

    def __repr__(self) -> str:
        return (
            f"ResidualNetwork({type(self.model).__name__}, {len(self)} blocks: {self.layers[0]} ... {self.layers[-1]})"
        )

    @property
    def layers(self) -> tuple[str, ...]:
        """The blocks' names, in forward order.

        Example:
            >>> import resnet_lesion as rl, timm
            >>> network = rl.wrap(timm.create_model("resnet18"))
            >>> network.layers[:2]
            ('layer1.0', 'layer1.1')
        """
        return tuple(block.layer for block in self.blocks)

    @property
    def branches(self) -> tuple[Branch, ...]:
        """What each block's residual branch is made of, in forward order.

        Example:
            >>> import resnet_lesion as rl, timm
            >>> network = rl.wrap(timm.create_model("resnet18"))
            >>> network.branches[0].exit, network.branches[2].shortcut
            ('bn2', 'downsample')
        """
        return tuple(block.branch for block in self.blocks)

    @property
    def stage(self) -> NDArray[np.int64]:
        """The stage of each block, counted from 0: blocks that are children of one module share one.

        Example:
            >>> import resnet_lesion as rl, timm
            >>> network = rl.wrap(timm.create_model("resnet18"))
            >>> network.stage.tolist()
            [0, 0, 1, 1, 2, 2, 3, 3]
        """
        number = {parent: i for i, parent in enumerate(dict.fromkeys(self._parents))}
        return np.array([number[parent] for parent in self._parents], dtype=np.int64)

    @property
    def is_downsampling(self) -> NDArray[np.bool_]:
        """Whether each block's shortcut is a projection (timm's ``downsample``) rather than the identity.

        Example:
            >>> import resnet_lesion as rl, timm
            >>> network = rl.wrap(timm.create_model("resnet18"))
            >>> network.is_downsampling.nonzero()[0].tolist()
            [2, 4, 6]
        """
        return np.array([not block.has_identity_shortcut for block in self.blocks])

    @property
    def device(self) -> torch.device:
        """The device that the model computes on: that of its parameters, or the one that offloaded ones are brought to.

        Example:
            >>> import resnet_lesion as rl, timm
            >>> network = rl.wrap(timm.create_model("resnet18"))
            >>> network.device
            device(type='cpu')
        """
        return execution_device(self.model)

    @property
    def dtype(self) -> torch.dtype:
        """The floating-point type of the model's parameters.

        Example:
            >>> import resnet_lesion as rl, timm
            >>> network = rl.wrap(timm.create_model("resnet18"))
            >>> network.dtype
            torch.float32
        """
        return floating_dtype(self.model)

    def index(self, layers: str | int | Iterable[str | int]) -> list[int]:
        """Translate block names (or indices) into indices.

        Args:
            layers: One of them, or several.

        Returns:
            The indices, in the order given.

        Raises:
            ValueError: If there is no such block.

        Example:
            >>> import resnet_lesion as rl, timm
            >>> network = rl.wrap(timm.create_model("resnet18"))
            >>> network.index(["layer2.0", 7])
            [2, 7]
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
        happens at its position. Contexts nest, and may end in any order. What ``torch.export``, ``torch.compile`` or
        ``torch.func`` make of the model in here is lesioned; a copy would be too, for ever, so it is refused.

        Args:
            delete: Names (or indices) of the blocks to delete.
            order: One order row instead: at each position the index of the block that runs there, or -1.

        Yields:
            The model, lesioned until the context ends.

        Raises:
            ValueError: If a block does not exist, the row does not fit, or not exactly one of the two is given.
            RuntimeError: If another thread has such a context open on the model or a part of it. An analysis of
                another thread, which ends by itself, is waited for.

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
        with reserved(self.model, ends_by_itself=False):
            self.look_up()
            with self._opened():
                whole = self.forwards()
                forwards = {
                    block.module: block.without_branch if index == DELETED else whole[index]
                    for block, index in zip(self.blocks, row, strict=True)
                }
                with replaced_forwards(forwards):
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
            RuntimeError: If another thread has such a context open on the model or a part of it.

        Example:
            >>> import resnet_lesion as rl, timm, torch
            >>> network = rl.wrap(timm.create_model("resnet18").eval())
            >>> x = torch.zeros(1, 3, 64, 64, requires_grad=True)
            >>> with network.routed([1, 0, 1, 0, 1, 0, 1, 0]) as model:
            ...     model(x).sum().backward()
        """
        with reserved(self.model, ends_by_itself=False):
            self.look_up()
            self.require_skips()
            with self._opened(), ExitStack() as stack:
                route(stack, self.blocks, as_path(path, len(self)))
                yield self.model

    @contextmanager
    def isolated(self) -> Iterator[None]:
        """Put the model into eval mode and open its chains; on exit it is as it was, and so are the random states."""
        require_whole_weights(self.model)
        with isolated(self.model):
            self.look_up()
            with self._opened():
                yield

    def require_skips(self) -> None:
        """Refuse a plain network, which has one path only.

        Raises:
            PathsError: If a block has no skip.
        """
        plain = next((block.layer for block in self.blocks if not block.branch.skip), None)
        if plain is not None:
            raise PathsError(
                f"expected a residual network, but {plain!r} has no skip: a plain network has a single path. "
                "Deletion, Reorder and evaluate work on it. If other blocks have a skip, let its adapter return None."
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
            AdapterError: If a block deviates, its exit does not run exactly once, or the blocks do not run once each in
                order.
            ValueError: If the inputs are not finite.
            Exception: Whatever the model itself raises, with a note on the inputs.

        Example:
            >>> import resnet_lesion as rl, timm, torch
            >>> network = rl.wrap(timm.create_model("resnet18"))
            >>> network.verify(torch.randn(2, 3, 64, 64)) < 1e-3
            True
        """
        if not len(inputs) or not torch.isfinite(inputs).all():
            raise ValueError(
                f"expected at least one input to verify the blocks on, and only finite values, "
                f"got shape {tuple(inputs.shape)}{' with NaN or infinity' if len(inputs) else ''}."
            )
        require_whole_weights(self.model)
        with isolated(self.model), self.precision(), torch.no_grad():
            self.look_up()
            return max(verified_pass(self.model, self.blocks, self.chains, self.to_device(inputs)).deviations)

    def trace(self, inputs: Tensor, *args: object) -> Trace:
        """Run the whole model once and note the shape of every block's input and output.

        Args:
            inputs: What the model takes, (N, ...).
            *args: Further arguments of the model.

        Returns:
            The blocks' ``input_shapes`` and ``output_shapes``, without the batch, and the model's ``output`` (N, ...).

        Raises:
            AdapterError: If the blocks do not run once each in order on one tensor that they leave alone, or the model
                returns no (N, ...) tensor.
            Exception: Whatever the model itself raises, with a note on the inputs.

        Example:
            >>> import resnet_lesion as rl, timm, torch
            >>> network = rl.wrap(timm.create_model("resnet18"))
            >>> trace = network.trace(torch.randn(2, 3, 64, 64))
            >>> trace.input_shapes[2], trace.output_shapes[2]
            ((64, 16, 16), (128, 8, 8))
        """
        shapes: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
        inputs = self.to_device(inputs)

        def note(i: int, x: Tensor, y: Tensor) -> None:
            if not len(x) == len(y) == len(inputs):
                raise AdapterError(
                    f"expected {len(inputs)} rows at block {self.layers[i]!r}, one for each image, got {len(x)} and "
                    f"after it {len(y)}: the model changes its batch dimension, along which lesions are stacked."
                )
            shapes.append((tuple(x.shape[1:]), tuple(y.shape[1:])))

        with self.isolated(), torch.no_grad():
            output = as_output(watch(self.model, self.blocks, inputs, note, *args), len(inputs))
        return Trace(tuple(s[0] for s in shapes), tuple(s[1] for s in shapes), output)

    def to_device(self, inputs: Tensor) -> Tensor:
        """Move inputs to the model's device and, if they are floating-point, to its dtype."""
        dtype = self.dtype if inputs.is_floating_point() else inputs.dtype
        device = self.device
        if device.type == "meta" and not inputs.is_meta:
            raise TypeError(
                "expected a model whose weights have values, got one on the meta device. Load them first: "
                "model.to_empty(device='cpu'), then model.load_state_dict(...)."
            )
        return inputs.to(device, dtype, non_blocking=True)

    @contextmanager
    def _opened(self) -> Iterator[None]:
        with replaced_forwards({chain.module: chain for chain in self.chains}), self.precision():
            yield

    @contextmanager
    def precision(self) -> Iterator[None]:
        """Compute in the network's own precision, which is the model's."""
        yield


def _blocks_of(model: nn.Module) -> tuple[tuple[Block, ...], tuple[Chain, ...], list[str]]:
    """Return a model's blocks in forward order, its chains, and the name of what each block is a child of."""
    names = {module: name for name, module in model.named_modules()}
    blocks: list[Block] = []
    chains: list[Chain] = []
    parents: list[str] = []
    for module, name in names.items():
        found = find_branch(module) if is_block(module) else None
        if isinstance(found, Branch):
            blocks.append(Block(name, module, found))
            parents.append(name.rpartition(".")[0])
        elif found is not None:
            # a module that another network has open keeps its links, so that contexts nest
            opened = in_place_of_forward(found.module)
            chain = next((function for function in opened if isinstance(function, Chain)), found)
            chains.append(chain)
            where = names[chain.module]
            for key, link in chain.links.items():
                branch = find_branch(link) if is_block(link) else None
                if isinstance(branch, Branch):
                    blocks.append(Block(".".join(filter(None, (where, key))), link, branch))
                    parents.append(where.rpartition(".")[0])
    if not blocks:
        raise TypeError(no_blocks(model))
    return tuple(blocks), tuple(chains), parents


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
