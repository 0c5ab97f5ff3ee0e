"""The residual identity, tried on a model as it is: every block computes what its adapter says."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from resnet_lesion.branch import HOW_TO
from resnet_lesion.chain import Chain
from resnet_lesion.errors import AdapterError
from resnet_lesion.forward_pass import run, watch
from resnet_lesion.isolation import isolated

if TYPE_CHECKING:
    from resnet_lesion.network import ResidualNetwork


def verify(network: ResidualNetwork, inputs: Tensor) -> float:
    """See :meth:`ResidualNetwork.verify`, which this is."""
    if not len(inputs) or not torch.isfinite(inputs).all():
        raise ValueError(
            f"expected at least one input to verify the blocks on, and only finite values, "
            f"got shape {tuple(inputs.shape)}{' with NaN or infinity' if len(inputs) else ''}."
        )
    inputs, exits, deviations = network.to_device(inputs), dict[int, list[Tensor]](), list[float]()

    def keep(i: int, _module: nn.Module, _args: Any, output: Tensor) -> None:
        exits.setdefault(i, []).append(output.clone())  # the block may add the shortcut to it in place

    def check(i: int, x: Tensor, y: Tensor) -> None:
        block, residuals = network.blocks[i], exits.pop(i, [])
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

    with isolated(network.model), torch.no_grad():
        deviations += _verify_chains(network, inputs)
    with ExitStack() as stack, network.isolated(), torch.no_grad():
        for i, block in enumerate(network.blocks):
            for name in block.entries:
                block.part(name)  # must exist
            handle = block.part(block.branch.exit).register_forward_hook(partial(keep, i))
            stack.callback(handle.remove)
        watch(network, inputs, check)
    return max(deviations)


def _verify_chains(network: ResidualNetwork, inputs: Tensor) -> list[float]:
    if not network.chains:
        return []
    seen: list[tuple[Chain, Tensor, tuple[Any, ...], dict[str, Any], Tensor]] = []

    def keep(chain: Chain, _module: nn.Module, args: tuple[Any, ...], named: dict[str, Any], y: Tensor) -> None:
        seen.append((chain, args[0].clone(), args[1:], named, y.clone()))

    with ExitStack() as stack:
        for chain in network.chains:
            stack.callback(chain.module.register_forward_hook(partial(keep, chain), with_kwargs=True).remove)
        run(network.model, inputs)
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
