"""Deleting and moving blocks: the engine against each alternative, which must find the same results first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Literal

import numpy as np
import torch
import xarray as xr
from torch import Tensor

import resnet_lesion as rl

from . import alternatives
from .networks import Spec, Workload
from .timing import OURS, compared, side_by_side

SIZES = range(1, 11)
"""How many blocks are deleted, or pairs swapped, in random lesions."""
HOOKS, REPLACED = "hook loop", "blocks replaced"
LAYERS, FEATURES = "Captum LayerFeatureAblation", "Captum FeatureAblation"
ACCELERATED = f"{OURS}, accelerated"
# Captum may stack lesions along the batch; with about this many images in one, a plain forward pass is at its fastest
_STACKED_IMAGES = {"cpu": 8, "cuda": 256}
# A prediction is a tie if the right class leads or trails by less than this, in standard deviations of the logits:
# another batch size rounds differently.
_TIE = 1e-3
LOSS_TOLERANCE = 1e-3

Kind = Literal["single", "deletions", "reorderings"]
Analyze = Callable[[rl.ResidualNetwork], xr.Dataset]
Alternative = Callable[[rl.ResidualNetwork, np.ndarray, Tensor, Tensor], Tensor]


class WrongResultError(AssertionError):
    """An alternative does not find what the engine finds, so their times say nothing."""


def single_deletion(spec: Spec, device: str) -> dict[str, object]:
    """Delete each block alone."""
    workload = Workload(spec, device)
    loops = {
        HOOKS: alternatives.hook_loop,
        REPLACED: alternatives.replaced_blocks,
        LAYERS: alternatives.captum_layers,
        FEATURES: _stacked(workload),
    }
    return _compare(workload, "single", loops, {})


def random_deletions(spec: Spec, device: str) -> dict[str, object]:
    """Delete random subsets of 1 to 10 blocks."""
    workload = Workload(spec, device)
    loops = {HOOKS: alternatives.hook_loop, REPLACED: alternatives.replaced_blocks, FEATURES: _stacked(workload)}
    missing = {LAYERS: "it ablates one layer at a time, and a subset of the blocks is several"}
    return _compare(workload, "deletions", loops, missing)


def reorderings(spec: Spec, device: str) -> dict[str, object]:
    """Swap 1 to 10 random pairs of blocks."""
    missing = {
        HOOKS: "a hook cannot change the order in which blocks run",
        LAYERS: "it changes the values of tensors, not the order in which blocks run",
        FEATURES: "it changes the values of tensors, not the order in which blocks run",
    }
    return _compare(Workload(spec, device), "reorderings", {REPLACED: alternatives.replaced_blocks}, missing)


def analysis(workload: Workload, kind: Kind) -> Analyze:
    """Return what runs the engine on one kind of lesions."""
    options = {"n_draws": workload.spec.draws, "show_progress": False}

    def analyze(network: rl.ResidualNetwork) -> xr.Dataset:
        if kind == "reorderings":
            return rl.Reorder(network).analyze(workload.data, n_swaps=SIZES, **options)
        return rl.Deletion(network).analyze(workload.data, n_deleted=SIZES if kind == "deletions" else None, **options)

    return analyze


def rows_of(result: xr.Dataset) -> np.ndarray:
    """Return the (n_lesions, n_blocks) order rows that a result is about."""
    if "order" in result:
        return result.order.values.reshape(-1, result.sizes["position"])
    n = result.sizes["layer"]
    deleted = result.deleted.values.reshape(-1, n) if "deleted" in result else np.eye(n, dtype=bool)
    return np.where(deleted, -1, np.arange(n))


def full_precision() -> AbstractContextManager[None]:
    """Let a GPU convolve in float32 while results are compared, so that rounding hides no mistake."""
    return torch.backends.cudnn.flags(enabled=True, allow_tf32=False)


def spread(n: int, timed: int | None) -> np.ndarray:
    """Choose ``timed`` of n, evenly spread; all of them for None."""
    return np.arange(n) if timed is None or timed >= n else np.linspace(0, n - 1, timed).round().astype(int)


def check(name: str, result: xr.Dataset, chosen: Sequence[int], found: Tensor) -> None:
    """Compare an alternative with the engine on the lesions that it did.

    Args:
        name: Name of the alternative.
        result: What the engine found for all lesions.
        chosen: The lesions that the alternative did.
        found: (n_chosen, N, 2) what it found, as :func:`alternatives.scores` gives it.

    Raises:
        WrongResultError: If the number of images classified correctly differs (ties may count either way), or the mean
            cross-entropy does.
    """
    lead, loss = found.double().cpu().unbind(2)
    ties = (lead.abs() < _TIE).sum(1).numpy()
    ours = {key: result[key].values.reshape(-1)[chosen] for key in ("correct", "loss")}
    theirs = {"correct": (lead > 0).sum(1).numpy(), "loss": loss.mean(1).numpy()}
    wrong = (np.abs(ours["correct"] - theirs["correct"]) > ties) | ~np.isclose(
        ours["loss"], theirs["loss"], rtol=LOSS_TOLERANCE, atol=LOSS_TOLERANCE
    )
    if wrong.any():
        at = int(np.flatnonzero(wrong)[0])
        one, other = (f"{int(of['correct'][at])} right, loss {of['loss'][at]:.6g}" for of in (ours, theirs))
        raise WrongResultError(
            f"expected {name!r} to find what {OURS} finds, but they differ in {wrong.sum()} of {len(chosen)} lesions, "
            f"first in number {chosen[at]}: {OURS} {one}; {name} {other}. Fix the alternative before timing it."
        )


def _compare(
    workload: Workload, kind: Kind, loops: dict[str, Alternative], missing: dict[str, str]
) -> dict[str, object]:
    network, analyze = workload.network, analysis(workload, kind)
    ours: dict[str, Callable[[], object]] = {OURS: partial(analyze, network)}
    with full_precision():
        result = analyze(network)
        rows = rows_of(result)
        chosen = spread(len(rows), workload.spec.timed)
        runs = {name: partial(loop, network, rows[chosen], *workload.data) for name, loop in loops.items()}
        for name, run in runs.items():
            check(name, result, chosen, run())
        ours[ACCELERATED] = accelerated = partial(analyze, rl.accelerate(network.model, workload.inputs))
        n_differing = int((accelerated().correct != result.correct).sum())
    seconds = side_by_side(ours | runs, workload.spec.turns)
    units = dict.fromkeys(ours, len(rows)) | dict.fromkeys(runs, len(chosen))
    return {
        **workload.describe(),
        "lesions": len(rows),
        "block_evaluations": result.attrs["block_evaluations"],
        "naive_block_evaluations": result.attrs["naive_block_evaluations"],
        "accelerated_counts_that_differ": n_differing,
        "lesions_in_a_batch_of_captum": _at_once(workload),
        "contenders": compared(seconds, units, "lesions"),
        "missing": missing,
    }


def _stacked(workload: Workload) -> Alternative:
    return partial(alternatives.captum_features, perturbations_per_eval=_at_once(workload))


def _at_once(workload: Workload) -> int:
    return max(1, _STACKED_IMAGES[workload.device] // workload.spec.images)
