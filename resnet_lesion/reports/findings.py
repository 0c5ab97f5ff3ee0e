"""What a result shows, a sentence for each question that it answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from resnet_lesion.results.kinds import kinds_of
from resnet_lesion.results.quantities import area, decay_factor, groups, mean_over_draws, percent


def findings(result: xr.Dataset | xr.DataTree) -> list[str]:
    """Say what the data show, a sentence for each question that they answer.

    Every number is computed from the result; nothing is taken from the paper.

    Args:
        result: What an analyzer or :func:`resnet_lesion.study` returned.

    Returns:
        Sentences, in the order of the groups.
    """
    return [
        SENTENCES[kind](dataset) for _, dataset in groups(result) for kind in kinds_of(dataset) if kind in SENTENCES
    ]


def _deletion(dataset: xr.Dataset) -> str:
    error = dataset["error"]
    worst = error.isel(layer=int(error.argmax("layer")))
    whole = ""
    if {"baseline_error", "error_low", "error_high"} <= set(dataset.data_vars):
        baseline = dataset["baseline_error"]
        same = int(((dataset["error_low"] <= baseline) & (baseline <= dataset["error_high"])).sum())
        whole = (
            f" (none deleted: {percent(float(baseline))}, "
            f"inside the 95 % interval of {same} of the {error.sizes['layer']} blocks)"
        )
    return (
        f"One block deleted: the median error is {percent(float(error.median()))}{whole}; "
        f"the worst is {percent(float(worst))}, without {worst['layer'].item()}.{_without_effect(dataset)}"
    )


def _without_effect(dataset: xr.Dataset) -> str:
    if not {"loss", "baseline_loss", "agreement"} <= set(dataset.data_vars):
        return ""
    same = (dataset["loss"] == dataset["baseline_loss"]).all() and (dataset["agreement"] == 1).all()
    return " No block changes any output, as when branches start at zero: is the network trained?" if same else ""


def _random_deletion(dataset: xr.Dataset) -> str:
    mean = mean_over_draws(dataset["error"], "n_deleted").sortby("n_deleted")
    points = [
        f"{percent(float(mean[i]))} with {_blocks(mean['n_deleted'][i])}" for i in _three(mean["n_deleted"].values)
    ]
    text = f"Many blocks deleted: the mean error is {_listed(points)} deleted"
    return f"{text}; normalised area under the curve {area(mean):.2f}." if mean.size > 1 else f"{text}."


def _remaining(dataset: xr.Dataset) -> str:
    remaining = dataset["remaining_fraction"]
    n = int(remaining["path_length"].max())
    one = remaining.isel(n_deleted=int(np.abs(remaining["n_deleted"].values - 10).argmin()))
    shares = [f"{percent(float(one.sel(path_length=k)))} of those through {_blocks(k)}" for k in (n // 10, n // 2)]
    return f"Paths left with {_blocks(one['n_deleted'])} deleted: {_listed(shares)}."


def _reorder(dataset: xr.Dataset) -> str:
    mean = xr.Dataset({name: mean_over_draws(dataset[name], "n_swaps") for name in ("error", "kendall_tau")})
    mean = mean.sortby("kendall_tau", ascending=False) if mean["kendall_tau"].ndim else mean.expand_dims("n_swaps")
    points = [
        f"{percent(float(mean['error'][i]))} at a mean Kendall's tau of {float(mean['kendall_tau'][i]):.2f}"
        for i in _three(mean["kendall_tau"].values)
    ]
    return f"Blocks swapped: the mean error is {_listed(points)}."


def _effective(dataset: xr.Dataset) -> str:
    single, together = (_effective_range(dataset, prefix) for prefix in ("", "sum_"))
    note = "all paths of a length taken together"
    text = f"{single}; with {note}, {together}" if single and together else single or f"{together}, {note}"
    return f"Effective paths: {text}."


def _effective_range(dataset: xr.Dataset, prefix: str) -> str:
    names = [f"{prefix}{name}" for name in ("effective_low", "effective_high", "gradient_share")]
    if not set(names) <= set(dataset.data_vars):
        return ""
    low, high = (int(dataset[name]) for name in names[:2])
    held, paths = (
        percent(float(dataset[name].sel(path_length=slice(low, high)).sum())) for name in (names[2], "path_fraction")
    )
    blocks = _blocks(low) if low == high else f"{low} to {high} blocks"
    return f"{held} of the gradient passes {blocks} ({paths} of the paths)"


def _sampled(dataset: xr.Dataset) -> str:
    factor = decay_factor(dataset["mean_gradient_norm"])
    lengths = dataset["path_length"]
    if not np.isfinite(factor):
        some = lengths.values[dataset["mean_gradient_norm"].values > 0]
        carrying = f"only paths through {_blocks(some[0])} carry any" if some.size else "no path carries any"
        return f"Gradient along one path: {carrying}."
    return (
        f"Gradient along one path: with each block that the path passes its mean norm changes by a factor of "
        f"{factor:.3g}, fitted over {int(lengths.min())} to {int(lengths.max())} blocks."
    )


def _exact(dataset: xr.Dataset) -> str:
    gradient = dataset["sum_gradient_norm"]
    largest = gradient.isel(path_length=int(gradient.argmax("path_length")))
    return (
        "Gradient of all paths of one length together: its norm is largest, "
        f"{float(largest):.3g}, for paths through {_blocks(largest['path_length'])}{_deviation(dataset)}."
    )


def _deviation(dataset: xr.Dataset) -> str:
    n, lengths = dataset.sizes["layer"], dataset.sizes["path_length"]
    if "convergence_delta" not in dataset or lengths <= n:  # without the longest it is what those carry
        return ""
    delta = float(dataset["convergence_delta"])
    return "; all lengths together are the gradient" + (f", except for at most {delta:.1g} of it" if delta else "")


def _comparison(dataset: xr.Dataset) -> str:
    errors = dataset["error"].mean("seed")
    rates = ", ".join(f"{name.item()} {percent(float(errors.sel(network=name)))}" for name in errors["network"])
    n, p = dataset.sizes["seed"], float(dataset["welch_p_value"])
    test = f"over {n} trainings of each, p = {p:.2g} (Welch's t-test)" if np.isfinite(p) else "trained once each"
    return f"Error rates: {rates}; {test}."


SENTENCES: dict[str, Callable[[xr.Dataset], str]] = {
    "deletion": _deletion,
    "random_deletion": _random_deletion,
    "remaining_paths": _remaining,
    "reorder": _reorder,
    "effective_path": _effective,
    "sampled_path_gradient": _sampled,
    "path_gradient": _exact,
    "comparison": _comparison,
}
"""What each kind of result says; a result of another kind says nothing."""


def _three(values: NDArray[Any]) -> list[int]:
    """Choose at most three indices of sorted values: both ends, and the value closest to half-way."""
    return sorted({0, int(np.abs(values - (values[0] + values[-1]) / 2).argmin()), len(values) - 1})


def _listed(items: Sequence[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def _blocks(number: int | np.integer[Any] | xr.DataArray) -> str:
    return "1 block" if int(number) == 1 else f"{int(number)} blocks"
