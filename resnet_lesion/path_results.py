"""What follows from the gradient norms of single random paths."""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from resnet_lesion.results import variable


def over_draws(dataset: xr.Dataset) -> xr.Dataset:
    """Return the dataset with what follows from the paths' ``gradient_norm``; NaN where none was drawn."""
    norms = dataset.gradient_norm.transpose("path_length", "draw").values
    errors = np.array([standard_error(row[~np.isnan(row)]) for row in norms])
    by_length = ("path_length",)
    return dataset.assign(
        mean_gradient_norm=variable(by_length, np.nanmean(norms, axis=1), "mean norm of a single path's gradient"),
        gradient_norm_standard_error=variable(by_length, errors, "standard error of the mean norm over the draws"),
        n_draws=variable(by_length, (~np.isnan(norms)).sum(1), "number of paths drawn"),
    )


def standard_error(values: NDArray[np.float64]) -> float:
    """Return the standard error of the values' mean; NaN of fewer than two."""
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")
