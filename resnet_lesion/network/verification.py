"""The residual identity, tried on a model as it is: every block computes what its adapter says."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from resnet_lesion.blocks.block import Block
from resnet_lesion.blocks.chain import Chain
from resnet_lesion.errors import HOW_TO, AdapterError
from resnet_lesion.network.forward_pass import run, watch


def verify_blocks(model: nn.Module, blocks: Sequence[Block], inputs: Tensor) -> list[float]:
    """Check ``post(shortcut(x) + scale(branch(x)))`` on each block of a model; return the relative deviations."""
    exits, deviations = dict[int, list[Tensor]](), list[float]()

    def keep(i: int, _module: nn.Module, _args: Any, output: Tensor) -> None:
        exits.setdefault(i, []).append(output.clone())  # the block may add the shortcut to it in place

    def check(i: int, x: Tensor, y: Tensor) -> None:
        block, residuals = blocks[i], exits.pop(i, [])
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
                f"block {block.layer!r} ({type(block.module).__name__}) is not post(shortcut(x) + scale(branch(x))) as "
                f"{block.branch} says: relative deviation {deviation:.3g}. Correct its adapter; see {HOW_TO}."
            )
        deviations.append(deviation)

    with ExitStack() as stack:
        for i, block in enumerate(blocks):
            for name in block.entries:
                block.part(name)  # must exist
            handle = block.part(block.branch.exit).register_forward_hook(partial(keep, i))
            stack.enter_context(handle)
        watch(model, blocks, inputs, check)
    return deviations


def verify_chains(model: nn.Module, chains: Sequence[Chain], inputs: Tensor) -> list[float]:
    """Check that modules compute their links one after another; return the relative deviations."""
    if not chains:
        return []
    seen: list[tuple[Chain, Tensor, tuple[Any, ...], dict[str, Any], Tensor]] = []

    def keep(chain: Chain, _module: nn.Module, args: tuple[Any, ...], named: dict[str, Any], y: Tensor) -> None:
        seen.append((chain, args[0].clone(), args[1:], named, y.clone()))

    with ExitStack() as stack:
        for chain in chains:
            stack.enter_context(chain.module.register_forward_hook(partial(keep, chain), with_kwargs=True))
        run(model, inputs)
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
