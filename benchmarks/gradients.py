"""Path gradients: sampled against a loop of routed passes, exact against plain forward and backward passes."""

from __future__ import annotations

from functools import partial

import numpy as np

import resnet_lesion as rl

from . import alternatives
from .lesions import WrongResultError, full_precision, spread
from .networks import Spec, Workload
from .timing import OURS, compared, side_by_side

LOOP, PLAIN = "loop of routed passes", "plain forward and backward passes"
# this many together take long enough to be timed well
_PASSES = 5
_NORM_TOLERANCE = 1e-2
# the square of a smaller norm loses digits in float32
_SMALLEST_NORM = 1e-15
_CAPTUM = "its gradients run along all paths at once"
_REPLACED = "without a block the forward values change, and with them every gradient"


def sampled_paths(spec: Spec, device: str) -> dict[str, object]:
    """Measure the gradient norms of random paths of each length."""
    workload = Workload(spec, device)
    network, gradient = workload.network, rl.PathGradient(workload.network)
    sample = partial(gradient.analyze, workload.mistaken, method="sample", n_draws=spec.draws, show_progress=False)
    with full_precision():
        result = sample()
        paths = result.path.values.reshape(-1, len(network))
        chosen = spread(len(paths), spec.timed)
        loop = partial(alternatives.routed_loop, network, paths[chosen], *workload.mistaken)
        check(LOOP, result.gradient_norm.values.reshape(-1)[chosen], loop().cpu().numpy())
    seconds = side_by_side({OURS: sample, LOOP: loop}, spec.turns)
    return {
        **workload.describe(),
        "paths": len(paths),
        "contenders": compared(seconds, {OURS: len(paths), LOOP: len(chosen)}, "paths"),
        "missing": {"Captum": _CAPTUM, "blocks replaced": _REPLACED},
    }


def exact_paths(spec: Spec, device: str) -> dict[str, object]:
    """Measure the gradients of all path lengths exactly."""
    workload = Workload(spec, device)
    model, n_lengths = workload.network.model, len(workload.network) + 1
    exact = partial(rl.PathGradient(workload.network).analyze, workload.mistaken, method="exact", show_progress=False)
    plain = partial(alternatives.plain_pass, model, *workload.mistaken)
    with full_precision():
        result, gradient = exact(), plain()
    if not float(result.convergence_delta) < _NORM_TOLERANCE:
        raise WrongResultError(
            f"expected all path lengths together to be the gradient, got a relative deviation of "
            f"{float(result.convergence_delta):.2g}. Fix the engine before timing it."
        )
    check(PLAIN, np.array([result.full_gradient_norm]), gradient.flatten(1).norm(dim=1).mean()[None].cpu().numpy())
    contenders = {OURS: exact, PLAIN: lambda: [plain() for _ in range(_PASSES)]}
    seconds = side_by_side(contenders, spec.turns)
    return {
        **workload.describe(),
        "path_lengths": n_lengths,
        # the reference is one plain pass, so that the engine's time is counted in such passes
        "contenders": compared(seconds, {OURS: 1, PLAIN: _PASSES}, "passes", reference=PLAIN),
        "missing": {"Captum": _CAPTUM, "blocks replaced": _REPLACED},
    }


def check(name: str, ours: np.ndarray, theirs: np.ndarray) -> None:
    """Compare gradient norms.

    Raises:
        WrongResultError: If one deviates by more than a hundredth.
    """
    size = np.maximum(np.abs(theirs), _SMALLEST_NORM)
    deviation = float((np.abs(ours - theirs) / size).max())
    if not deviation <= _NORM_TOLERANCE:
        raise WrongResultError(
            f"expected the gradient norms of {name!r} to be those of {OURS}, got a relative deviation of "
            f"{deviation:.2g}. Fix the alternative before timing it."
        )
