"""Batch norms folded into the convolutions before them, where a forward pass shows that this changes nothing."""

from __future__ import annotations

import copy
from collections import Counter, OrderedDict
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from resnet_lesion.blocks.block import has_hooks
from resnet_lesion.network.residual_network import ResidualNetwork

# Two ways to compute a value in float64 differ by rounding: sums of a few thousand terms, each off by 1e-16.
_TOLERANCE = 1e-11


_M = TypeVar("_M", bound=nn.Module)


def fold_norms(network: ResidualNetwork, inputs: Tensor) -> dict[str, str]:
    """Fold each batch norm of a network's model into the convolution right before it, in place.

    A pair is folded if in one forward pass the convolution and the norm ran once each, the norm read the convolution's
    output, and nothing else read that output or the parameters of either; if no lesion can separate them, as both are
    in one block or both outside all blocks; and if in float64 the folded convolution computes what the two did.
    Whatever else the norm's module does (an activation, a dropout) stays, as its submodules under its name; if that is
    nothing, an identity takes its place.

    Args:
        network: A network in eval mode, whose model is changed; wrap it again afterwards. Modules with hooks are left
            alone.
        inputs: (N, ...) inputs on the model's device.

    Returns:
        The name of each norm that was folded, by that of its convolution.
    """
    model = network.model
    names = {module: name for name, module in model.named_modules()}
    owner = {part: block.layer for block in network.blocks for part in block.module.modules()}
    # what follows such a block's branch without an addition stays when the branch is deleted
    open_ended = {block.layer for block in network.blocks if not block.branch.skip and block.branch.post is not None}
    folded: dict[str, str] = {}
    for conv, norm in _pairs(model, inputs):
        if owner.get(conv) != owner.get(norm) or owner.get(conv) in open_ended:
            continue
        exact = _fused(conv, norm)
        if exact is not None:
            fused, own = exact.to(conv.weight.dtype), conv.weight
            conv.weight, conv.bias = fused.weight.requires_grad_(own.requires_grad), fused.bias
            _replace(model, norm, _rest(norm))
            folded[names[conv]] = names[norm]
    return folded


class _Reads(TorchDispatchMode):
    """Counts how often each tensor is read by an operation, parameters too."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counts: Counter[int] = Counter()
        self._alive: list[object] = []  # the id of a tensor that is gone would be used again

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        read = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
        self.counts.update(map(id, read))
        output = func(*args, **(kwargs or {}))
        self._alive += [read, output]
        return output


def _pairs(model: nn.Module, inputs: Tensor) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """List the convolutions whose output one norm reads and nothing else."""
    convs: dict[int, nn.Conv2d] = {}  # by the id of what they return
    norms: dict[int, nn.BatchNorm2d] = {}  # by the id of what they are given
    runs: Counter[nn.Module] = Counter()

    def behind(conv: nn.Conv2d, _args: tuple[Any, ...], output: Tensor) -> None:
        runs[conv] += 1
        convs[id(output)] = conv

    def before(norm: nn.BatchNorm2d, args: tuple[Any, ...]) -> None:
        runs[norm] += 1
        if args:  # else it is called with a keyword
            norms[id(args[0])] = norm

    with ExitStack() as stack, torch.no_grad():
        for module in model.modules():
            if has_hooks(module):
                continue
            # a subclass may compute its weight in forward, as weight standardisation does
            if type(module) is nn.Conv2d:
                stack.enter_context(module.register_forward_hook(behind))
            elif isinstance(module, nn.BatchNorm2d):
                stack.enter_context(module.register_forward_pre_hook(before))
        reads = stack.enter_context(_Reads())
        try:
            model(inputs.clone())  # which it may write into
        except NotImplementedError:  # torch cannot show what goes on in some of its operations, flex_attention for one
            return []

    def alone(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> bool:
        own = (conv.weight, conv.bias, norm.weight, norm.bias, norm.running_mean, norm.running_var)
        return runs[conv] == runs[norm] == 1 and all(reads.counts[id(t)] == 1 for t in own if t is not None)

    return [
        (conv, norms[key])
        for key, conv in convs.items()
        if key in norms and reads.counts[key] == 1 and alone(conv, norms[key])
    ]


def _fused(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d | None:
    """Fold in float64, or return None where that is not exactly what the two compute."""
    try:
        fused = fuse_conv_bn_eval(_double(conv), _double(norm))
        return fused if _computes_the_same(conv, norm, fused) else None
    except Exception:  # a norm of somebody's own, whose parts may run in any way or none
        return None


def _computes_the_same(conv: nn.Conv2d, norm: nn.BatchNorm2d, folded: nn.Conv2d) -> bool:
    """Try it in float64, on random values: those of a pass might be hidden by an activation or a channel of zeros."""
    generator = torch.Generator().manual_seed(0)
    # several images, a little larger than the kernel
    size = (step * (kernel - 1) + 4 for step, kernel in zip(conv.dilation, conv.kernel_size, strict=True))
    conv, norm = _double(conv), _double(norm)

    def normalised(y: Tensor) -> Tensor:
        return F.batch_norm(y, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)

    with torch.no_grad():
        x = torch.randn(4, conv.in_channels, *size, generator=generator, dtype=torch.float64).to(conv.weight.device)
        found = folded(x)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        # values that the norm spreads over both signs, so that an activation shows on whichever side it acts
        y = torch.randn(found.shape, generator=generator, dtype=torch.float64).to(x.device)
        y = 3 * y * (norm.running_var + norm.eps).sqrt()[:, None, None] + norm.running_mean[:, None, None]
        return _agree(found, normalised(conv(x))) and _agree(_rest(norm)(normalised(y)), norm(y))


def _agree(found: Tensor, expected: Tensor) -> bool:
    """Compare channel by channel: one with large values must not hide another."""
    if found.shape != expected.shape:
        return False
    difference, size = (t.abs().amax((0, 2, 3)) for t in (found - expected, expected))
    return bool((difference <= _TOLERANCE * size).all())


def _rest(norm: nn.BatchNorm2d) -> nn.Module:
    children = OrderedDict((name, child) for name, child in norm._modules.items() if child is not None)
    return (nn.Sequential(children) if children else nn.Identity()).eval()


def _double(module: _M) -> _M:
    return copy.deepcopy(module).double()


def _replace(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if child is old:
                parent._modules[name] = new
