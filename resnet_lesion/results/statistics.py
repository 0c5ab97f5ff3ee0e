"""How far chance moves a number: Wilson intervals and standard errors."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri  # scipy.stats, whose norm.ppf this is, takes long to import


def wilson_interval(
    successes: ArrayLike, total: ArrayLike, coverage: float = 0.95
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the Wilson score interval of a binomial proportion, elementwise.

    Args:
        successes: Number of successes.
        total: Number of trials, at least 1.
        coverage: Nominal coverage.

    Returns:
        Lower and upper end, as fractions.

    References:
        Wilson 1927, "Probable Inference, the Law of Succession, and Statistical Inference", JASA 22. SciPy's
        ``binomtest(...).proportion_ci(method="wilson")`` gives the same for one proportion at a time.
    """
    k, n = np.asarray(successes, dtype=np.float64), np.asarray(total, dtype=np.float64)
    z = float(ndtri((1 + coverage) / 2))
    share, weight = k / n, z**2 / n
    centre = (share + weight / 2) / (1 + weight)
    half = np.sqrt(share * (1 - share) * weight + weight**2 / 4) / (1 + weight)
    # rounding must not keep an error of exactly 0 or 1 out of its interval
    return np.where(k == 0, 0.0, centre - half), np.where(k == n, 1.0, centre + half)


def standard_error(values: NDArray[np.float64]) -> float:
    """Return the standard error of the values' mean; NaN for fewer than two."""
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")
