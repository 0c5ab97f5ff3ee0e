"""Which path lengths hold almost all of the gradient: derived from what was measured for each length."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import reduce

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from resnet_lesion.network.orders import generator
from resnet_lesion.network.paths import path_counts, path_fraction
from resnet_lesion.results.statistics import standard_error
from resnet_lesion.results.variables import provenance, variable

_TITLE = "Effective path lengths"


def effective_lengths(sources: list[xr.Dataset], coverage: float, n_bootstrap: int, seed: int) -> xr.Dataset:
    """Derive the effective path lengths from PathGradient datasets; see ``EffectivePath.analyze``."""
    parts = []
    for source in sources:
        if "path_length" not in source.dims or not {"gradient_norm", "sum_gradient_norm"} & set(source.data_vars):
            raise ValueError("expected a Dataset from PathGradient.analyze, with gradient_norm or sum_gradient_norm.")
        n = source.sizes["layer"]
        if source.path_length.values.tolist() != list(range(n + 1)):
            raise ValueError(
                f"expected all path lengths from 0 to {n}, got {source.sizes['path_length']} of them. "
                "Run PathGradient.analyze without max_path_length."
            )
        parts.append(xr.Dataset({"path_count": path_counts(n), "path_fraction": path_fraction(n)}))
        if "gradient_norm" in source:
            parts.append(_sampled(source, coverage, n_bootstrap, seed))
        if "sum_gradient_norm" in source:
            parts.append(_summed(source, coverage))
    return reduce(lambda a, b: a.merge(b, compat="identical", join="exact"), parts)


def effective_of_study(sampled: xr.Dataset, exact: xr.Dataset) -> xr.Dataset:
    """Derive a study's effective path lengths from its two kinds of gradients, with where they came from."""
    measured = json.loads(sampled.attrs["options"])
    options = {"coverage": 0.95, "n_bootstrap": 1000, "seed": measured["seed"]}
    dataset = effective_lengths([sampled.merge(exact, compat="identical")], **options)
    return with_origin(dataset, sampled, {**options, "measured": measured})


def with_origin(dataset: xr.Dataset, source: xr.Dataset, options: Mapping[str, object]) -> xr.Dataset:
    """Return effective path lengths with the attributes of what they were derived from, except their own options."""
    attrs = {name: value for name, value in source.attrs.items() if name not in ("fingerprint", "shard")}
    return provenance(dataset, attrs | {"title": _TITLE, "options": json.dumps(options)})


def effective_range(dataset: xr.Dataset) -> tuple[int, int]:
    """Return the shortest and the longest effective path length: the paper's or, without it, that of exact sums.

    Raises:
        ValueError: If the dataset does not come from ``EffectivePath.analyze``.
    """
    prefix = prefix_of(dataset)
    ends = f"{prefix}effective_low", f"{prefix}effective_high"
    if not set(ends) <= set(dataset.data_vars):
        seen = list(map(str, dataset.data_vars))
        raise ValueError(f"expected a dataset with {ends[0]!r}, as EffectivePath.analyze returns it, got {seen}.")
    low, high = (int(dataset[end]) for end in ends)
    return low, high


def prefix_of(dataset: xr.Dataset) -> str:
    """Return what the names of its effective range begin with: "" for the paper's, "sum_" for exact sums alone."""
    return "sum_" if "effective_low" not in dataset and "sum_effective_low" in dataset else ""


def shortest_range(shares: NDArray[np.float64], coverage: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find the shortest contiguous range of path lengths that holds the coverage; of equally short ones the fullest.

    Args:
        shares: (m, n + 1) fractions of each path length, each row adding up to 1.
        coverage: The fraction that the range must hold.

    Returns:
        The lowest and the highest length in the range, both (m,).
    """
    m, n_lengths = shares.shape
    sums = np.concatenate([np.zeros((m, 1)), np.cumsum(shares, axis=1)], axis=1)
    low, high = np.zeros(m, dtype=np.int64), np.full(m, n_lengths - 1)
    found = np.zeros(m, dtype=bool)
    for width in range(1, n_lengths + 1):
        held = sums[:, width:] - sums[:, :-width]
        start = held.argmax(axis=1)
        # rounding must not keep the full range from holding everything
        new = ~found & (held[np.arange(m), start] >= coverage - 1e-12)
        low[new], high[new] = start[new], start[new] + width - 1
        found |= new
    return low, high


def _sampled(source: xr.Dataset, coverage: float, n_bootstrap: int, seed: int) -> xr.Dataset:
    norms = [row[~np.isnan(row)] for row in source["gradient_norm"].transpose("path_length", "draw").values]
    if not all(len(row) for row in norms):
        raise ValueError("expected the gradient norm of at least one path of each length, got only NaN.")
    n = len(norms) - 1
    count, fraction = path_counts(n).values, path_fraction(n).values
    mean = np.array([row.mean() for row in norms])
    share, low, high, inside = effective_of((count * mean)[None], fraction, coverage)
    rng = generator(seed, n)
    resampled = np.stack([row[rng.integers(len(row), size=(n_bootstrap, len(row)))].mean(1) for row in norms], axis=1)
    quantiles = np.array([0.025, 0.975])
    totals = count * resampled
    replicates = effective_of(totals[totals.sum(1) > 0], fraction, coverage)
    shares, lows, highs, insides = (np.quantile(values, quantiles, axis=0) for values in replicates)
    if any(len(row) < 2 for row, paths in zip(norms, count, strict=True) if paths > 1):
        # one path says nothing about how much paths differ
        shares, lows, highs, insides = (np.full_like(ends, np.nan, float) for ends in (shares, lows, highs, insides))
    by_length, interval = ("path_length",), ("quantile",)
    return xr.Dataset(
        {
            "mean_gradient_norm": variable(by_length, mean, "mean norm of a single path's gradient"),
            "total_gradient": variable(
                by_length, count * mean, "number of paths times mean norm of one path's gradient"
            ),
            "gradient_share": variable(by_length, share[0], "share of the total gradient"),
            "effective_low": variable((), low[0], "shortest effective path length"),
            "effective_high": variable((), high[0], "longest effective path length"),
            "effective_path_fraction": variable((), inside[0], "share of all paths that is effective"),
            "gradient_share_interval": variable((*interval, *by_length), shares, "share of the total gradient"),
            "effective_low_interval": variable(interval, lows, "shortest effective path length"),
            "effective_high_interval": variable(interval, highs, "longest effective path length"),
            "effective_path_fraction_interval": variable(interval, insides, "share of all paths that is effective"),
        },
        coords={"quantile": variable(interval, quantiles, "quantile of the bootstrap replicates")},
    )


def _summed(source: xr.Dataset, coverage: float) -> xr.Dataset:
    norms = source["sum_gradient_norm"].values
    share, low, high, inside = effective_of(norms[None], path_fraction(len(norms) - 1).values, coverage)
    by_length = ("path_length",)
    return xr.Dataset(
        {
            "sum_gradient_norm": variable(by_length, norms, "norm of the summed path gradients"),
            "sum_gradient_share": variable(by_length, share[0], "share of the norms of the summed path gradients"),
            "sum_effective_low": variable((), low[0], "shortest effective path length, by summed gradients"),
            "sum_effective_high": variable((), high[0], "longest effective path length, by summed gradients"),
            "sum_effective_path_fraction": variable(
                (), inside[0], "share of all paths that is effective, by summed gradients"
            ),
        }
    )


def effective_of(
    totals: NDArray[np.float64], fraction: NDArray[np.float64], coverage: float
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Return fractions of the gradient, ends of the effective range and fraction of paths in it, row by row.

    Raises:
        ValueError: If there is no gradient.
    """
    if not np.isfinite(totals).all():
        raise ValueError("expected finite gradient norms, got NaN or infinity.")
    if not totals.sum(1).min() > 0:
        raise ValueError("expected a gradient, got none: every path's gradient is zero.")
    shares = totals / totals.sum(1, keepdims=True)
    low, high = shortest_range(shares, coverage)
    sums = np.concatenate([[0.0], np.cumsum(fraction)])
    return shares, low, high, sums[high + 1] - sums[low]


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
