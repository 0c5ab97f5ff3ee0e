"""What the package computes, once more: slowly, one thing at a time, in plain PyTorch, with nothing of the package."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from helpers.models import BLOCKS, Case

Kind = tuple[tuple[int, ...], tuple[int, ...]]


def layers(model: nn.Module) -> list[str]:
    """List the names of the residual blocks."""
    return [name for name, module in model.named_modules() if isinstance(module, BLOCKS)]


def exit_of(block: nn.Module, case: Case) -> nn.Module:
    """Find the last module of a block's branch."""
    return [getattr(block, name) for name in case.exits if getattr(block, name, None) is not None][-1]


def kinds(model: nn.Module, inputs: Tensor) -> list[Kind]:
    """List the shapes of each block's input and output, without the batch."""
    found: list[Kind] = []
    handles = [
        model.get_submodule(name).register_forward_hook(
            lambda _module, args, output: found.append((tuple(args[0].shape[1:]), tuple(output.shape[1:])))
        )
        for name in layers(model)
    ]
    with torch.no_grad():
        model(inputs)
    for handle in handles:
        handle.remove()
    return found


def put(model: nn.Module, names: Iterable[str], blocks: Iterable[nn.Module]) -> None:
    """Assign the entries of ``_modules`` anew."""
    for name, block in zip(names, blocks, strict=True):
        parent, _, child = name.rpartition(".")
        model.get_submodule(parent)._modules[child] = block


def without_branch(block: nn.Module, case: Case) -> nn.Module:
    """Delete a block by a hook on the last module of its branch: on a copy, since the block may run elsewhere too."""
    block = copy.deepcopy(block)
    # fresh zeros: what the hook returns may be overwritten by the addition
    exit_of(block, case).register_forward_hook(lambda _module, _args, output: torch.zeros_like(output))
    return block


def lesioned(model: nn.Module, case: Case, row: Iterable[int], inputs: Tensor) -> Tensor:
    """Run the model with the blocks where the row says, those of -1 without their branch."""
    names = layers(model)
    blocks = [model.get_submodule(name) for name in names]
    try:
        put(
            model,
            names,
            [blocks[i] if i >= 0 else without_branch(own, case) for own, i in zip(blocks, row, strict=True)],
        )
        with torch.no_grad():
            return model(inputs)
    finally:
        put(model, names, blocks)


def logits(model: nn.Module, case: Case, rows: Iterable[Iterable[int]], inputs: Tensor) -> Tensor:
    """Run the model under one lesion after another: (n_rows, N, n_classes)."""
    return torch.stack([lesioned(model, case, row, inputs) for row in rows])


def counts(model: nn.Module, scores: Tensor, inputs: Tensor, targets: Tensor) -> dict[str, np.ndarray]:
    """Count what is right, row by row and image by image."""
    with torch.no_grad():
        whole = model(inputs).argmax(1)
    correct, agreement, loss, by_class = [], [], [], []
    for row in scores:
        predicted = [int(image.argmax()) for image in row]
        correct.append(sum(p == t for p, t in zip(predicted, targets.tolist(), strict=True)))
        agreement.append(sum(p == w for p, w in zip(predicted, whole.tolist(), strict=True)) / len(inputs))
        loss.append(sum(float(F.cross_entropy(s[None], t[None])) for s, t in zip(row, targets, strict=True)) / len(row))
        by_class.append(
            [sum(p == t == c for p, t in zip(predicted, targets.tolist(), strict=True)) for c in range(scores.shape[2])]
        )
    return {
        "correct": np.array(correct),
        "agreement": np.array(agreement),
        "loss": np.array(loss),
        "correct_by_class": np.array(by_class),
    }


def block_evaluations(rows: Iterable[Sequence[int]]) -> int:
    """Count the distinct pairs of a prefix and the block that runs after it; a deleted block does not run."""
    return len({tuple(row[: i + 1]) for row in map(list, rows) for i in range(len(row)) if row[i] >= 0})


def kendall_tau(row: Sequence[int]) -> float:
    """Count the pairs that stand in their own order, less those that do not, as a share of all pairs."""
    pairs = [(a, b) for i, a in enumerate(row) for b in row[i + 1 :]]
    return sum(1 if a < b else -1 for a, b in pairs) / len(pairs)
