"""What figures, sentences and tables share: the datasets of a result, and numbers that follow from them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import xarray as xr


def groups(result: xr.Dataset | xr.DataTree) -> Iterator[tuple[str, xr.Dataset]]:
    """Iterate over the datasets of a result.

    Yields:
        The path of the group in its tree ("" for a Dataset or the root) and its dataset; empty groups are left out.
    """
    if isinstance(result, xr.Dataset):
        yield "", result
        return
    for node in result.subtree:
        if node.data_vars:
            yield node.path.strip("/"), node.to_dataset()


def has(dataset: xr.Dataset, name: str, *dims: str) -> bool:
    """Tell whether the dataset has a variable of this name over at least these dimensions."""
    return name in dataset.data_vars and set(dims) <= set(dataset[name].dims)


def mean_over_draws(array: xr.DataArray, *keep: str) -> xr.DataArray:
    """Average over every dimension but those to keep."""
    return array.mean([dim for dim in array.dims if dim not in keep])


def area(mean_error: xr.DataArray) -> float:
    """Return the area under mean error against ``n_deleted``, divided by the range of ``n_deleted``."""
    mean_error = mean_error.sortby("n_deleted")
    n_deleted = mean_error["n_deleted"].values
    return float(mean_error.integrate("n_deleted") / (n_deleted[-1] - n_deleted[0]))


def decay_factor(gradient: xr.DataArray) -> float:
    """Return the factor per block of the exponential fitted to a gradient norm against ``path_length``.

    NaN if there are fewer than two lengths with a gradient.
    """
    positive = _positive(gradient)
    return float(10 ** decay_line(positive).slope) if positive.size > 1 else float("nan")


def decay_line(gradient: xr.DataArray) -> Any:
    """Fit a straight line to the log10 of a gradient norm against ``path_length``, where there is a gradient.

    Returns:
        What SciPy's ``linregress`` returns.
    """
    from scipy.stats import linregress  # takes long to import, and every analyzer imports this file

    positive = _positive(gradient)
    return linregress(positive["path_length"].values, np.log10(positive.values))


def _positive(gradient: xr.DataArray) -> xr.DataArray:
    return gradient.where((gradient > 0) & np.isfinite(gradient)).dropna("path_length")


def percent(share: float) -> str:
    """Write a fraction as a percentage with two or three digits; with more where almost all would read as all."""
    text = f"{100 * share:.{2 if share < 0.1 else 3}g}"
    return f"{math.floor(1e4 * share) / 100} %" if text == "100" and share < 1 else f"{text} %"
