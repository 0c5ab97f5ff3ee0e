"""Do two networks have the same error rate? Tests on the same test images, over several trainings."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.stats import binomtest, ttest_ind

from resnet_lesion.results.statistics import wilson_interval
from resnet_lesion.results.variables import variable


def compare(
    a: Sequence[NDArray[np.bool_]], b: Sequence[NDArray[np.bool_]], names: tuple[str, str] = ("a", "b")
) -> xr.Dataset:
    """Compare how often two networks, each trained several times, get the same test images right.

    Two questions, two tests. McNemar's exact test asks of one training of each whether either is right on half of the
    images on which they disagree; it says nothing about another training. Welch's t-test asks of the errors of all
    trainings whether the two ways of training differ on average.

    Args:
        a: For each training of the first network, whether it is right on each image: (n_images,).
        b: The same for the second; the i-th training is set against the i-th of ``a``.
        names: What the two are called.

    Returns:
        ``error``, ``error_low``, ``error_high`` (network, seed), Wilson's 95 % interval over the images;
        ``only_first_right``, ``only_second_right``, ``mcnemar_p_value`` (seed); ``difference`` of the mean errors
        (second less first) with ``difference_low``, ``difference_high`` and ``welch_p_value``, NaN with one training
        each.

    Raises:
        ValueError: If the numbers of trainings or of images differ, or there are none.

    References:
        McNemar 1947, "Note on the sampling error of the difference between correlated proportions", Psychometrika 12;
        Welch 1947, "The generalization of 'Student's' problem", Biometrika 34.

    Example:
        >>> import numpy as np
        >>> from resnet_lesion.paper.comparison import compare
        >>> first, second = np.array([True, True, False]), np.array([True, False, False])
        >>> float(compare([first], [second]).mcnemar_p_value[0])
        1.0
    """
    if len({len(right) for right in [*a, *b]}) != 1 or len(a) != len(b):
        raise ValueError(
            "expected equally many trainings of both networks, on the same images, got "
            f"{[len(right) for right in a]} and {[len(right) for right in b]} images."
        )
    right = np.array([a, b])  # (network, seed, image)
    correct, total = right.sum(-1), right.shape[-1]
    low, high = wilson_interval(total - correct, total)
    error = 1 - correct / total
    only_a, only_b = (right[0] & ~right[1]).sum(-1), (right[1] & ~right[0]).sum(-1)
    p_values = [
        binomtest(int(first), int(first + second)).pvalue if first + second else 1.0
        for first, second in zip(only_a, only_b, strict=True)
    ]
    difference = error[1].mean() - error[0].mean()
    half, welch = _welch(total - correct)
    half /= total
    return xr.Dataset(
        {
            "error": variable(("network", "seed"), error, "share of the test images got wrong"),
            "error_low": variable(("network", "seed"), low, "lower end of the error's 95 % interval"),
            "error_high": variable(("network", "seed"), high, "upper end of the error's 95 % interval"),
            "total": variable((), total, "number of test images"),
            "only_first_right": variable(("seed",), only_a, "images that only the first network gets right"),
            "only_second_right": variable(("seed",), only_b, "images that only the second network gets right"),
            "mcnemar_p_value": variable(("seed",), p_values, "p value of McNemar's exact test"),
            "difference": variable((), difference, "mean error of the second network less that of the first"),
            "difference_low": variable((), difference - half, "lower end of the difference's 95 % interval"),
            "difference_high": variable((), difference + half, "upper end of the difference's 95 % interval"),
            "welch_p_value": variable((), welch, "p value of Welch's t-test over the trainings"),
        },
        {
            "network": variable(("network",), list(names), "network"),
            "seed": variable(("seed",), np.arange(len(a)), "number of the training"),
        },
        {"title": f"Errors of {names[0]} and {names[1]}"},
    )


def _welch(wrong: NDArray[np.int64]) -> tuple[float, float]:
    """Return half the 95 % interval of the difference of means, and the p value.

    Computed from whole numbers, as only their equality is exact.
    """
    if wrong.shape[1] < 2:
        return np.nan, np.nan
    if not wrong.var(1, ddof=1).any():
        return 0.0, 1.0 if wrong[0, 0] == wrong[1, 0] else 0.0
    # scipy warns where all trainings of one network have the same error, which leaves nothing in doubt here
    with warnings.catch_warnings(action="ignore", category=RuntimeWarning):
        test: Any = ttest_ind(wrong[1], wrong[0], equal_var=False)
    interval = test.confidence_interval()
    return float(interval.high - interval.low) / 2, float(test.pvalue)
