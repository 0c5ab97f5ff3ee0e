"""What users do to a model that neither its class nor its state dict tells: hooks, replaced forwards, swapped parts."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

Patch = Callable[[nn.Module, list[nn.Module], np.random.Generator], None]
"""Changes a model with these blocks, at random places."""


def _one(blocks, rng):
    return blocks[rng.integers(len(blocks))]


def _two(blocks, rng):
    first, second = sorted(rng.choice(len(blocks), 2, replace=False))
    return blocks[first], blocks[second]


def scaled(model, blocks, rng):
    factor = rng.uniform(0.5, 1.5)
    _one(blocks, rng).register_forward_hook(lambda _m, _a, y: factor * y)


def steered(model, blocks, rng):
    shift = rng.uniform(-1, 1)
    _one(blocks, rng).register_forward_pre_hook(lambda _m, args: (args[0] + shift,))


def scaled_branch(model, blocks, rng):
    _one(blocks, rng).conv2.register_forward_hook(lambda _m, _a, y: -1.2 * y)


def batch_mean_removed(model, blocks, rng):
    _one(blocks, rng).register_forward_hook(lambda _m, _a, y: y - y.mean(0))


def neighbour_added(model, blocks, rng):
    _one(blocks, rng).register_forward_hook(lambda _m, _a, y: y + 0.5 * y.roll(1, 0))


def batch_statistics(model, blocks, rng):
    def forward(x):
        return F.batch_norm(x, None, None, training=True)

    _one(blocks, rng).conv2.register_forward_hook(lambda _m, _a, y: forward(y))


def stops_early(model, blocks, rng):
    """All images or none take part, as their largest value decides."""
    bound = rng.uniform(0.5, 3)
    _one(blocks, rng).register_forward_hook(lambda _m, _a, y: y if y.mean() > bound else 0.1 * y)


def reads_an_earlier_block(model, blocks, rng):
    first, second = _two([b for b in blocks if b.conv2.out_channels == 4], rng)
    kept: list[Tensor] = []
    first.register_forward_hook(lambda _m, _a, y: kept.__setitem__(slice(None), [y]))
    second.register_forward_hook(lambda _m, _a, y: y + 0.7 * kept[0])


def reads_an_earlier_branch(model, blocks, rng):
    first, second = _two([b for b in blocks if b.conv2.out_channels == 4], rng)
    kept: list[Tensor] = []
    first.conv2.register_forward_hook(lambda _m, _a, y: kept.__setitem__(slice(None), [y]))
    second.conv2.register_forward_hook(lambda _m, _a, y: y + 0.7 * kept[0].detach())


def reads_the_stem(model, blocks, rng):
    block = _one([b for b in blocks if b.conv2.out_channels == 4], rng)
    kept: list[Tensor] = []
    model.stem.register_forward_hook(lambda _m, _a, y: kept.__setitem__(slice(None), [y]))
    block.register_forward_hook(lambda _m, _a, y: y + 0.3 * kept[0])


def keeps_the_number_of_images(model, blocks, rng):
    block, n = _one(blocks, rng), []
    model.stem.register_forward_hook(lambda _m, _a, y: n.__setitem__(slice(None), [len(y)]))
    block.register_forward_hook(lambda _m, _a, y: y * torch.arange(1.0, n[0] + 1).to(y).reshape(-1, 1, 1, 1)[: len(y)])


def forward_extended(model, blocks, rng):
    """A parallel adapter: the block's adapter does not describe it."""
    block = _one(blocks, rng)
    own = block.forward
    block.forward = lambda x: own(x) + 0.1


def forward_scaled(model, blocks, rng):
    block = _one(blocks, rng)
    own = block.forward
    block.forward = lambda x: 1.3 * own(x)


def forward_of_a_part_replaced(model, blocks, rng):
    block = _one(blocks, rng)
    own = block.conv1.forward
    block.conv1.forward = lambda x: F.gelu(own(x))


def part_swapped(model, blocks, rng):
    block = _one(blocks, rng)
    channels = block.conv2.out_channels
    block.conv2 = nn.Sequential(block.conv2, nn.Conv2d(channels, channels, 1, dtype=torch.float64))
    block.conv2.out_channels = channels


def block_swapped(model, blocks, rng):
    first, second = _two([b for b in blocks if b.conv2.out_channels == 4], rng)
    for parent in model.modules():
        for name, child in parent._modules.items():
            if child is second:
                parent._modules[name] = copy.deepcopy(first)


def buffers_changed(model, blocks, rng):
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer += rng.uniform(-0.5, 0.5)


def counts_its_calls(model, blocks, rng):
    """Every call changes what the next one computes, as moving averages do that are updated in eval mode."""
    block = _one(blocks, rng)
    block.register_buffer("calls", torch.zeros((), dtype=torch.float64))

    def hook(module, _args, y):
        module.calls += 1
        return y * (1 + 0.1 * module.calls)

    block.register_forward_hook(hook)


def observes_its_range(model, blocks, rng):
    """A moving maximum of all values, at which they are cut off, as fake quantisation does."""
    block = _one(blocks, rng)
    block.register_buffer("largest", torch.ones((), dtype=torch.float64))

    def hook(module, _args, y):
        module.largest.mul_(0.9).add_(0.1 * y.detach().amax())
        return y.clamp(max=float(module.largest))

    block.register_forward_hook(hook)


def counts_calls_of_a_branch(model, blocks, rng):
    block = _one(blocks, rng)
    block.conv2.register_buffer("calls", torch.zeros((), dtype=torch.float64))

    def hook(module, _args, y):
        module.calls += 1
        return y * (1 + 0.1 * module.calls)

    block.conv2.register_forward_hook(hook)


def counts_calls_outside_buffers(model, blocks, rng):
    block, calls = _one(blocks, rng), []

    def hook(_module, _args, y):
        calls.append(None)
        return y * (1 + 0.1 * len(calls))

    block.register_forward_hook(hook)


def gradient_hooked(model, blocks, rng):
    _one(blocks, rng).register_full_backward_hook(lambda _m, gradients, _g: (3 * gradients[0],))


def gradient_scaled(model, blocks, rng):
    def hook(_module, _args, y):
        if y.requires_grad:
            y.register_hook(lambda gradient: 2 * gradient)

    _one(blocks, rng).register_forward_hook(hook)


def reads_an_earlier_branch_with_its_gradient(model, blocks, rng):
    first, second = _two([b for b in blocks if b.conv2.out_channels == 4], rng)
    kept: list[Tensor] = []
    first.conv2.register_forward_hook(lambda _m, _a, y: kept.__setitem__(slice(None), [y]))
    second.conv2.register_forward_hook(lambda _m, _a, y: y + 0.7 * kept[0])


def noisy(model, blocks, rng):
    _one(blocks, rng).register_forward_hook(lambda _m, _a, y: y + 0.1 * torch.randn_like(y))


def nothing(model, blocks, rng):
    pass


NUMBERS = (
    nothing,
    scaled,
    steered,
    scaled_branch,
    forward_of_a_part_replaced,
    part_swapped,
    block_swapped,
    buffers_changed,
)
"""Leave the images alone and each block what its adapter says: computed as ever."""

ONE_BY_ONE = (reads_an_earlier_block, reads_an_earlier_branch, reads_the_stem)
"""Leave the images alone, but take from elsewhere than the block before."""

BATCH_BY_BATCH = (batch_mean_removed, neighbour_added, batch_statistics, keeps_the_number_of_images, observes_its_range)
"""Mix the images."""

REFUSED = (forward_extended, forward_scaled, noisy)
"""Make a block that its adapter does not describe, or that gives something else each time."""

ANY = (counts_its_calls, stops_early)
"""It depends."""

NO_GRADIENTS = (
    counts_its_calls,
    counts_calls_of_a_branch,
    counts_calls_outside_buffers,
    gradient_hooked,
    gradient_scaled,
    reads_an_earlier_branch_with_its_gradient,
)
"""The paths together have another gradient than the model, which a forward pass may not show."""

PATCHES = (*NUMBERS, *ONE_BY_ONE, *BATCH_BY_BATCH, *REFUSED, *ANY)
