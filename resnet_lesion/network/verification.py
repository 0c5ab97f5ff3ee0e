"""The residual identity, tried on a model as it is: every block computes what its adapter says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

from torch import Tensor, nn

from resnet_lesion.blocks.block import Block
from resnet_lesion.blocks.chain import Chain
from resnet_lesion.errors import HOW_TO, AdapterError
from resnet_lesion.network.forward_pass import run_model, watch
from resnet_lesion.network.precision import relative_deviation, within_rounding


def verify_blocks(model: nn.Module, blocks: Sequence[Block], inputs: Tensor) -> list[float]:
    """Check ``post(shortcut(x) + scale(branch(x)))`` on each block of a model; return the relative deviations."""
    take_residual, deviations = list[Callable[[], Tensor]](), list[float]()

    def check(i: int, x: Tensor, y: Tensor) -> None:
        block, residual = blocks[i], take_residual[i]()
        try:
            expected = block.combine(x, residual)
        except RuntimeError as reason:
            if type(reason) is not RuntimeError:  # out of memory, or the model's own: not the adapter's fault
                raise
            raise AdapterError(
                f"block {block.layer!r} ({type(block.module).__name__}) cannot be put together as {block.branch} "
                f"says: {reason}. Correct its adapter; see {HOW_TO}."
            ) from reason
        if expected.shape != y.shape:
            raise AdapterError(
                f"block {block.layer!r}: the adapter makes shape {tuple(expected.shape)}, "
                f"the block {tuple(y.shape)}. Correct its adapter; see {HOW_TO}."
            )
        deviation = relative_deviation(expected, y)
        if not within_rounding(deviation, y.dtype):
            raise AdapterError(
                f"block {block.layer!r} ({type(block.module).__name__}) is not post(shortcut(x) + scale(branch(x))) as "
                f"{block.branch} says: relative deviation {deviation:.3g}. Correct its adapter; see {HOW_TO}."
            )
        deviations.append(deviation)

    with ExitStack() as stack:
        for block in blocks:
            for name in block.entries:
                block.part(name)  # must exist
            take_residual.append(stack.enter_context(block.kept_residual()))
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
        run_model(model, inputs)
    deviations = []
    for chain, x, args, named, y in seen:
        try:
            deviation = relative_deviation(chain(x, *args, **named), y)
        except RuntimeError as error:
            if type(error) is not RuntimeError:
                raise
            raise AdapterError(
                f"{type(chain.module).__name__} cannot run the links {list(chain.links)} in a row: {error}. "
                f"Correct its adapter; see {HOW_TO}."
            ) from error
        if not within_rounding(deviation, y.dtype):
            raise AdapterError(
                f"{type(chain.module).__name__} does not compute the links {list(chain.links)} one after another: "
                f"relative deviation {deviation:.3g}. Correct its adapter; see {HOW_TO}."
            )
        deviations.append(deviation)
    return deviations
