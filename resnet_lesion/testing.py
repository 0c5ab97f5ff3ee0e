"""Checks for adapters, ours and third-party ones."""

from __future__ import annotations

import copy
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from resnet_lesion.blocks.block import Block
from resnet_lesion.engines.linearization import BlockGraph
from resnet_lesion.errors import HOW_TO, AdapterError
from resnet_lesion.network.precision import relative_deviation
from resnet_lesion.network.residual_network import ResidualNetwork, wrap
from resnet_lesion.network.routing import route

# wrong adapters are off by far more; some of timm's norms (EvoNorm, FRN) compute in single precision whatever they get
TOLERANCE = 1e-6


@torch.inference_mode(False)  # in which no gradients can be tried
def check_adapter(model: nn.Module | ResidualNetwork, inputs: Tensor) -> float:
    """Prove that the adapters describe every block of a model, by trying each of them.

    The checks run in float64 on a copy whose constant parameters (norms, gains, layer scales, zero-initialised weights)
    are drawn at random first: the branches of a fresh network are often zero, and every test of them passes then. Each
    block is tried on the input that the model gives it and on one of the same shape with both signs, as a forgotten
    ReLU does not show on inputs that are already positive. For each block,

    1. ``block(x)`` equals ``post(shortcut(x) + scale(branch(x)))``;
    2. deleting it equals zeroing the branch's exit, to the last bit;
    3. routing the gradient does not change the forward value, and the gradients through branch and shortcut add up to
       the whole, both as the block computes them and as its adapter says;
    4. no hook and no other change is left behind.

    Args:
        model: A model with known residual blocks; it is copied.
        inputs: What the model takes, (N, ...).

    Returns:
        The largest relative deviation seen: of the order of 1e-16, or 1e-8 if a norm computes in single precision.

    Raises:
        AdapterError: If a check fails; it names the block and the check.
        TypeError: If the model has no known block.

    Example:
        >>> import resnet_lesion as rl, timm, torch
        >>> rl.testing.check_adapter(timm.create_model("resnet18"), torch.randn(2, 3, 64, 64)) < 1e-12
        True
    """
    network = wrap(copy.deepcopy(wrap(model).model).double())
    generator = torch.Generator().manual_seed(0)
    randomize(network.model, generator)
    before = _attachments(network.model)
    deviations = [network.verify(inputs)]
    with network.isolated():
        block_inputs = _block_inputs(network, inputs)
        for block, x in zip(network.blocks, block_inputs, strict=True):
            signed = torch.randn(x.shape, generator=generator, dtype=x.dtype).to(x.device)
            # without a skip there is nothing to delete the branch from, and one path only
            checks = (_identity, _deletion, _gradient) if block.branch.skip else (_identity,)
            for value in (x, signed):
                deviations += [check(block, value) for check in checks]
    if _attachments(network.model) != before:
        raise AdapterError("hooks or replaced forwards were left on the model.")
    return max(deviations)


def randomize(model: nn.Module, generator: torch.Generator) -> None:
    """Draw every parameter that is constant, and the running statistics of batch norms, at random, in place.

    Args:
        model: A model, typically fresh.
        generator: A CPU generator.
    """

    def uniform(tensor: Tensor, low: float, high: float) -> None:
        tensor.copy_(torch.rand(tensor.shape, generator=generator) * (high - low) + low)

    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.numel() and bool((parameter == parameter.flatten()[0]).all()):
                if parameter.ndim > 1:
                    fan_in = parameter[0].numel()
                    parameter.copy_(torch.randn(parameter.shape, generator=generator) / fan_in**0.5)
                else:
                    uniform(parameter, 0.25, 1.0)  # larger gains make the values of deep networks explode
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                uniform(buffer, -0.5, 0.5)
            elif name.endswith("running_var"):
                uniform(buffer, 0.5, 1.5)


def _identity(block: Block, x: Tensor) -> float:
    with torch.no_grad(), block.kept_residual() as take_residual:
        y = block.module(x.clone())
        residual = take_residual()
        if not residual.any():
            raise AdapterError(f"block {block.layer!r}: the exit {block.branch.exit!r} is zero.")
        expected = block.combine(x, residual)
    return _checked(block, "block(x) is not post(shortcut(x) + scale(branch(x)))", expected, y)


def _deletion(block: Block, x: Tensor) -> float:
    with torch.no_grad():
        with block.part(block.branch.exit).register_forward_hook(_zeros):
            zeroed = block.module(x.clone())
        deleted = block.without_branch(x)
    deviation = _checked(block, f"deleting it is not zeroing its exit {block.branch.exit!r}", deleted, zeroed)
    if not torch.equal(zeroed, deleted):
        raise AdapterError(
            f"block {block.layer!r}: deleting it is not zeroing its exit {block.branch.exit!r} to the last bit; "
            f"relative deviation {deviation:.3g}. Let its adapter name what the block itself calls; see {HOW_TO}."
        )
    return deviation


def _zeros(_module: nn.Module, _args: Any, output: Tensor) -> Tensor:
    return torch.zeros_like(output)


def _gradient(block: Block, x: Tensor) -> float:
    def weights_of(y: Tensor) -> Tensor:
        # any fixed weights will do; these are all different
        return torch.linspace(0.5, 1.5, y.numel(), dtype=y.dtype, device=y.device).reshape(y.shape)

    def through(*path: bool) -> tuple[Tensor, Tensor]:
        leaf = x.clone().requires_grad_()
        with torch.enable_grad(), ExitStack() as stack:
            for choice in path:
                route(stack, [block], np.array([choice]))
            y = block.module(leaf.clone())
            total = (y * weights_of(y)).sum()
            (gradient,) = torch.autograd.grad(total, leaf, allow_unused=True, materialize_grads=True)
        return y.detach(), gradient

    (y, whole), (y_branch, branch), (y_skip, skip) = through(), through(True), through(False)
    if not (torch.equal(y, y_branch) and torch.equal(y, y_skip)):
        raise AdapterError(f"block {block.layer!r}: routing the gradient changes the forward value.{_FIX}")
    sides = _checked(block, "the gradients through branch and shortcut do not add up", branch + skip, whole)
    try:
        with torch.enable_grad():
            graph = BlockGraph(block, x, 1)
        arrived = graph.post(weights_of(y)[None])
        carried = graph.branch(arrived) + graph.shortcut(arrived, torch.empty_like(x)[None])
    except RuntimeError as error:
        if type(error) is not RuntimeError:  # out of memory, for one
            raise
        raise AdapterError(
            f"block {block.layer!r} ({type(block.module).__name__}): no gradient passes what its adapter says: {error}."
            f"{_FIX}"
        ) from error
    what = "the gradients through branch and shortcut, as its adapter says them, do not add up"
    return max(sides, _checked(block, what, carried[0], whole))


_FIX = f" Correct its adapter; see {HOW_TO}."


def _checked(block: Block, what: str, got: Tensor, expected: Tensor) -> float:
    deviation = relative_deviation(got, expected)
    if not deviation <= TOLERANCE:
        raise AdapterError(
            f"block {block.layer!r} ({type(block.module).__name__}): {what}; relative deviation {deviation:.3g}.{_FIX}"
        )
    return deviation


def _block_inputs(network: ResidualNetwork, inputs: Tensor) -> list[Tensor]:
    seen: dict[int, Tensor] = {}

    def keep(i: int, _module: nn.Module, args: tuple[Any, ...]) -> None:
        seen[i] = args[0].clone()

    with ExitStack() as stack, torch.no_grad():
        for i, block in enumerate(network.blocks):
            stack.enter_context(block.module.register_forward_pre_hook(partial(keep, i)))
        network.model(network.to_device(inputs).clone())
    return [seen[i] for i in range(len(network))]


def _attachments(model: nn.Module) -> list[tuple[int, ...]]:
    return [
        (
            len(module._forward_hooks),
            len(module._forward_pre_hooks),
            len(module._backward_hooks),
            "forward" in vars(module),
        )
        for module in model.modules()
    ]
