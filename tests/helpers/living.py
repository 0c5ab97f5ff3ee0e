"""How many tensors are alive after each of many analyses, in a process that has done nothing else."""

from __future__ import annotations

import gc

import torch

import resnet_lesion as rl
from helpers import models


def tensors_after(counted: tuple[int, ...]) -> tuple[list[int], bool]:
    """Count them after some of the repetitions of a path gradient analysis; tell whether a weight has a gradient."""
    model, (inputs, targets) = models.build(dtype=torch.float32), models.data(2, dtype=torch.float32)
    algorithm, counts = rl.PathGradient(model), []
    for i in range(max(counted) + 1):
        algorithm.analyze((inputs, targets), method="sample", n_draws=1, show_progress=False)
        algorithm.attribute(inputs, target=targets)
        if i in counted:
            gc.collect()
            counts.append(sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects()))
    return counts, any(parameter.grad is not None for parameter in model.parameters())
