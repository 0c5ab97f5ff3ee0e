"""Let gradients flow along one path only, without touching a forward value."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from resnet_lesion.block import Block
from resnet_lesion.errors import AdapterError


def as_path(path: ArrayLike, n_blocks: int) -> NDArray[np.bool_]:
    """Check a path and return it as a (n_blocks,) mask: True for the branch, False for the shortcut.

    Raises:
        ValueError: If it is not one 0 or 1 for each block.
    """
    mask = np.asarray(path)
    if mask.shape != (n_blocks,) or not np.isin(mask, (0, 1)).all():
        raise ValueError(
            f"expected a path as {n_blocks} zeros (shortcut) and ones (branch), one for each block, "
            f"got shape {mask.shape}: {path!r:.80}."
        )
    return mask.astype(bool)


def route(stack: ExitStack, blocks: Sequence[Block], path: NDArray[np.bool_]) -> None:
    """Hang hooks on the blocks that cut the gradient of whatever is not on the path; the stack removes them."""
    for block, through_branch in zip(blocks, path, strict=True):
        if not through_branch:
            _hook(stack, block.part(block.branch.exit), _detach_output)
        elif isinstance(block.branch.shortcut, str):
            _hook(stack, block.part(block.branch.shortcut), _detach_output)
        else:
            _detach_shortcut(stack, block)


def _detach_shortcut(stack: ExitStack, block: Block) -> None:
    """Cut a shortcut without a module of its own: detach the block's input, and attach it again at the branch."""
    attached: list[Tensor] = []

    def at_block(_module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        attached[:] = [args[0]]
        return args[0].detach(), *args[1:]

    def at_entry(name: str, _module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        (x,) = attached
        # a value other than the block's input must not be replaced by it
        if args[0].data_ptr() != x.data_ptr() or args[0].shape != x.shape:
            raise AdapterError(
                f"block {block.layer!r} ({type(block.module).__name__}): the entry {name!r} is not fed the block's own "
                "input, so its gradient cannot be told from the shortcut's. Name the first module of the branch."
            )
        return x, *args[1:]

    stack.callback(block.module.register_forward_pre_hook(at_block).remove)
    for name in block.entries:
        stack.callback(block.part(name).register_forward_pre_hook(partial(at_entry, name)).remove)


def _hook(stack: ExitStack, module: nn.Module, hook: Any) -> None:
    stack.callback(module.register_forward_hook(hook).remove)


def _detach_output(_module: nn.Module, _args: Any, output: Tensor) -> Tensor:
    return output.detach()
