"""Let gradients flow along one path only, without touching a forward value."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from resnet_lesion.blocks.block import Attached, Block
from resnet_lesion.errors import AdapterError


def route(stack: ExitStack, blocks: Sequence[Block], path: NDArray[np.bool_]) -> None:
    """Attach hooks to the blocks that cut the gradient of whatever is not on the path; the stack removes them."""
    for block, through_branch in zip(blocks, path, strict=True):
        if not through_branch:
            stack.enter_context(block.part(block.branch.exit).register_forward_hook(Attached(_detach_output)))
        elif isinstance(block.branch.shortcut, str):
            stack.enter_context(block.part(block.branch.shortcut).register_forward_hook(Attached(_detach_output)))
        else:
            _detach_shortcut(stack, block)


def _detach_shortcut(stack: ExitStack, block: Block) -> None:
    """Cut a shortcut without a module of its own: detach the block's input, and attach it again at the branch.

    Without gradients there is nothing to cut, and the engines run a block on parts of its input.
    """
    attached: list[Tensor | None] = [None, None]

    def at_block(_module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        if not torch.is_grad_enabled():
            return args
        attached[:] = [args[0], args[0].detach()]
        return attached[1], *args[1:]

    def at_entry(name: str, _module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        if not torch.is_grad_enabled():
            return args
        x, given = attached
        if args[0] is not given:  # a value other than the block's input must not be replaced by it
            raise AdapterError(
                f"block {block.layer!r} ({type(block.module).__name__}): the entry {name!r} is not fed the block's own "
                "input, so its gradient cannot be told from the shortcut's. Name the first module of the branch."
            )
        return x, *args[1:]

    stack.enter_context(block.module.register_forward_pre_hook(Attached(at_block)))
    for name in block.entries:
        hook = Attached(partial(at_entry, name))
        # first of all, so that the hooks of contexts within others find what their own hook at the block has made
        stack.enter_context(block.part(name).register_forward_pre_hook(hook, prepend=True))


def _detach_output(_module: nn.Module, _args: Any, output: Tensor) -> Tensor:
    return output.detach()
