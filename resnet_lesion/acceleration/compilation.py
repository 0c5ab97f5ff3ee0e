"""Blocks compiled by ``torch.compile``, one by one, so that lesions still find each of them in its place."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from resnet_lesion.blocks.block import Block, Forward, has_hooks

# One compiled function serves all blocks of a class and is compiled again for each shape of their weights; torch's own
# limit of 8 would leave the last stages of a large network uncompiled. Before torch 2.14 it cannot be set here.
_OPTIONS: dict[str, Any] = {
    option: value
    for option, value in {"recompile_limit": 64, "isolate_recompiles": True}.items()
    if option in inspect.signature(torch.compile).parameters
}


class CompiledBlocks:
    """The forwards of a network's blocks, compiled when they first run without gradients.

    Blocks of one class share a compiled function, however many images they are given. A link of a chain, and a block
    with hooks inside, which a compiled function would not call, runs as it is; so does every block where gradients are
    wanted.
    """

    def __init__(self, model: nn.Module) -> None:
        self._own = set(model.modules())
        self._functions: dict[type[nn.Module], Any] = {}

    def forwards(self, blocks: Sequence[Block], forwards: Sequence[Forward]) -> list[Forward]:
        """Return the compiled forward of each block, or its forward as it is where that is not its class's."""
        return [
            self._compiled(block.module, forward)
            if block.module in self._own and "forward" not in vars(block.module)
            else forward
            for block, forward in zip(blocks, forwards, strict=True)
        ]

    def _compiled(self, block: nn.Module, plain: Forward) -> Forward:
        if type(block) not in self._functions:
            self._functions[type(block)] = torch.compile(_runner(type(block)), **_OPTIONS)
        function, parts = self._functions[type(block)], [*block.modules()][1:]

        def forward(x: Tensor) -> Tensor:
            if torch.is_grad_enabled() or any(map(has_hooks, parts)):
                return plain(x)
            x = x.view_as(x)  # the engine passes views or not; torch would compile twice
            # only the number of images: were all sizes free, another of the same value would be tied to it
            torch._dynamo.maybe_mark_dynamic(x, 0)
            result: Tensor = function(block, x)
            return result

        return forward


def _runner(kind: Any) -> Any:
    def run(block: nn.Module, x: Tensor) -> Any:
        # not block.forward: the engine puts its own there
        return kind.forward(block, x)

    return run
