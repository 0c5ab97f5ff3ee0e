"""Path gradients once more: each path by itself, through forward passes written out by hand, no hooks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from itertools import product

import torch
from timm.layers import BatchNormAct2d, create_conv2d
from timm.models.resnet import BasicBlock, ResNet
from timm.models.resnetv2 import PreActBasic, ResNetV2
from torch import Tensor, nn
from torch.nn import functional as F

from helpers.models import BASIC, images, labels, randomised

N_BLOCKS = 8
SHAPE = (3, 32, 32)

BUILD: dict[str, Callable[[], nn.Module]] = {
    "pre-activation": partial(
        ResNetV2,
        layers=(3, 3, 2),
        channels=(8, 8, 12),
        stem_chs=8,
        num_classes=5,
        basic=True,
        bottle_ratio=1.0,
        conv_layer=create_conv2d,
        norm_layer=BatchNormAct2d,
    ),
    "post-activation": partial(BASIC, layers=(2, 2, 2, 2), channels=(8, 8, 12, 12)),
}


def build(name: str, dtype: torch.dtype = torch.float64) -> nn.Module:
    """Build a timm network of 8 blocks with random norms, in eval mode."""
    return randomised(BUILD[name](), seed=5).to(dtype).eval()


def data(n: int = 3) -> tuple[Tensor, Tensor]:
    """Draw images that fit the networks, and labels."""
    return images(n, SHAPE), labels(n)


def all_paths(n: int = N_BLOCKS) -> list[tuple[int, ...]]:
    """List all 2^n paths."""
    return list(product((0, 1), repeat=n))


def cross_entropy(targets: Tensor) -> Callable[[Tensor], Tensor]:
    """Return the sum of the images' losses."""
    return lambda logits: F.cross_entropy(logits, targets, reduction="sum")


def score(targets: Tensor) -> Callable[[Tensor], Tensor]:
    """Return the sum of the images' target logits."""
    return lambda logits: sum(row[target] for row, target in zip(logits, targets, strict=True))


def path_gradient(
    model: nn.Module, inputs: Tensor, objective: Callable[[Tensor], Tensor], path: Sequence[int], wrt: int | None = None
) -> Tensor:
    """Return the gradient along one path at the input, or at that of block ``wrt``: detach all that is not on it."""
    x = inputs.clone().requires_grad_()
    leaf = x
    x = model.stem(x) if isinstance(model, ResNetV2) else model.maxpool(model.act1(model.bn1(model.conv1(x))))
    blocks = [module for module in model.modules() if isinstance(module, BasicBlock | PreActBasic)]
    for i, (block, through_branch) in enumerate(zip(blocks, path, strict=True)):
        if i == wrt:
            leaf = x = x.detach().requires_grad_()
        shortcut, branch = _parts(block, x)
        x = shortcut.detach() + branch if through_branch else shortcut + branch.detach()
        if isinstance(model, ResNet):
            x = F.relu(x)
    x = model.head(model.norm(x)) if isinstance(model, ResNetV2) else model.fc(x.mean((2, 3)))
    (gradient,) = torch.autograd.grad(objective(x), leaf)
    return gradient


def all_path_gradients(
    model: nn.Module, inputs: Tensor, objective: Callable[[Tensor], Tensor], wrt: int | None = None
) -> dict[tuple[int, ...], Tensor]:
    """Return the gradient along every path (of the blocks from ``wrt`` on; those before it do not matter)."""
    first = wrt or 0
    return {
        path: path_gradient(model, inputs, objective, (0,) * first + path, wrt) for path in all_paths(N_BLOCKS - first)
    }


@cache
def enumerated(name: str, objective: str) -> Mapping[tuple[int, ...], Tensor]:
    """Return the gradient of "cross_entropy" or "score" along every path, of :func:`data`; shared, so do not change."""
    inputs, targets = data()
    of_logits = {"cross_entropy": cross_entropy, "score": score}[objective](targets)
    return all_path_gradients(build(name), inputs, of_logits)


def of_length(gradients: Mapping[tuple[int, ...], Tensor], k: int) -> Tensor:
    """Add up the gradients along the paths of one length."""
    return sum(gradient for path, gradient in gradients.items() if sum(path) == k)


def norm(gradients: Tensor) -> Tensor:
    """Return each image's norm."""
    return gradients.flatten(1).norm(dim=1)


def _parts(block: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    if isinstance(block, BasicBlock):
        branch = block.bn2(block.conv2(F.relu(block.bn1(block.conv1(x)))))
        return x if block.downsample is None else block.downsample(x), branch
    activated = block.norm1(x)
    branch = block.conv2(block.norm2(block.conv1(activated)))
    return x if block.downsample is None else block.downsample(activated), branch
