"""What matters most in a result, as rows of cells."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import xarray as xr

from resnet_lesion.results.kinds import kinds_of
from resnet_lesion.results.quantities import has

_ROWS = 6


_NUMBER = re.compile(r"-?(\d|nan|inf)|$")


def table_of(dataset: xr.Dataset) -> list[list[str]]:
    """Tabulate what matters most in a dataset.

    Args:
        dataset: A result, or any other Dataset.

    Returns:
        Rows of cells, the head first: a result's numbers, some of them where a dimension is long; else the variables.
    """
    return next((TABLES[kind] for kind in kinds_of(dataset) if kind in TABLES), _variables)(dataset)


def is_number(cell: str) -> bool:
    """Tell whether a table's cell is empty or begins with a number."""
    return _NUMBER.match(cell) is not None


def claims_table(claims: xr.Dataset) -> list[list[str]]:
    """Tabulate what the paper claims beside what came out.

    Args:
        claims: What :func:`resnet_lesion.paper.claims.claims` returned.

    Returns:
        Rows of cells, the head first.
    """
    rows = [["figure", "the paper", "measured", "paper's value", "ours", "same conclusion"]]
    for i in range(claims.sizes["claim"]):
        row = claims.isel(claim=i)
        paper, ours, low, high = (float(row[name]) for name in ("paper", "ours", "low", "high"))
        interval = f" ({low:.3g} to {high:.3g})" if np.isfinite([low, high]).all() else ""
        words = [str(row[name].item()) for name in ("figure", "statement", "quantity")]
        conclusion = f"{'yes' if row.agrees else 'no'} (yes if {row.criterion.item()})"
        rows.append([*words, f"{paper:.3g}" if np.isfinite(paper) else "", f"{ours:.3g}{interval}", conclusion])
    return rows


def _comparison_table(dataset: xr.Dataset) -> list[list[str]]:
    """Tabulate the errors of two networks, a row for each training of both."""
    names = [str(name) for name in dataset["network"].values]
    rows = [["seed", *(f"error of {name}" for name in names), *(f"only {name} right" for name in names), "p (McNemar)"]]
    for i in range(dataset.sizes["seed"]):
        one = dataset.isel(seed=i)
        errors = [f"{error:.4f}" for error in one["error"].values]
        alone = [str(one[name].item()) for name in ("only_first_right", "only_second_right")]
        rows.append([str(one["seed"].item()), *errors, *alone, f"{float(one['mcnemar_p_value']):.3g}"])
    return rows


def _error_table(dataset: xr.Dataset, dim: str, ranked: bool) -> list[list[str]]:
    """Tabulate the variables that say how well a lesioned network does, for some coordinates along one dimension."""
    if ranked:
        chosen = np.argsort(-dataset["error"].values, kind="stable")[:_ROWS].tolist()
        heading = f"{dim} (the {len(chosen)} worst of {dataset.sizes[dim]})"
    else:
        chosen = _spread(dataset.sizes[dim])
        heading = _heading(dataset, dim, chosen)
    rows = [[heading, "error", "95 % interval", "loss", "agreement"]]
    for i in chosen:
        one = dataset.isel({dim: i})
        low, high = one.get("error_low"), one.get("error_high")
        interval = f"{float(low):.3f} to {float(high):.3f}" if low is not None and high is not None else ""
        rest = [f"{float(one[name]):.3f}" if name in one else "" for name in ("loss", "agreement")]
        rows.append([str(one[dim].item()), f"{float(one['error']):.3f}", interval, *rest])
    return rows


def _heading(dataset: xr.Dataset, dim: str, chosen: list[int]) -> str:
    name, size = str(dataset[dim].attrs.get("long_name", dim)), dataset.sizes[dim]
    return name if len(chosen) == size else f"{name} ({len(chosen)} of {size})"


def _draws_table(dataset: xr.Dataset, dim: str) -> list[list[str]]:
    """Tabulate mean and extremes over the draws along one dimension, if it is still there."""
    if not has(dataset, "error", dim):
        return _variables(dataset)
    columns = [name for name in ("kendall_tau", "error", "loss", "agreement") if has(dataset, name, dim)]
    chosen = _spread(dataset.sizes[dim])
    rows = [[_heading(dataset, dim, chosen), *(f"mean {name}" for name in columns), "error, range"]]
    for i in chosen:
        one = dataset.isel({dim: i})
        means = [f"{float(one[name].mean()):.3f}" for name in columns]
        extremes = f"{float(one['error'].min()):.3f} to {float(one['error'].max()):.3f}"
        rows.append([str(one[dim].item()), *means, extremes])
    return rows


def _profile_table(dataset: xr.Dataset, dim: str, *leave_out: str) -> list[list[str]]:
    """Tabulate every number along one dimension, except some."""
    columns = [str(name) for name, array in dataset.data_vars.items() if array.dims == (dim,) and name not in leave_out]
    columns = [name for name in columns if dataset[name].dtype.kind in "iuf"]
    rows = [[dim, *columns]]
    for i in _spread(dataset.sizes[dim], _ROWS + 4):
        one = dataset.isel({dim: i})
        rows.append([str(one[dim].item()) if dim in one.coords else str(i), *(f"{float(one[c]):.4g}" for c in columns)])
    return rows


def _variables(dataset: xr.Dataset) -> list[list[str]]:
    rows = [["variable", "over", "what it is"]]
    for name, array in dataset.data_vars.items():
        rows.append([str(name), ", ".join(map(str, array.dims)), str(array.attrs.get("long_name", ""))])
    return rows


def _lengths_table(dataset: xr.Dataset) -> list[list[str]]:
    """Tabulate what holds for each path length, except what is counted or measured elsewhere."""
    return _profile_table(dataset, "path_length", "path_count", "mean_gradient_norm", "sum_gradient_norm")


TABLES: dict[str, Callable[[xr.Dataset], list[list[str]]]] = {
    "deletion": lambda dataset: _error_table(dataset, "layer", ranked=True),
    "random_deletion": lambda dataset: _draws_table(dataset, "n_deleted"),
    "reorder": lambda dataset: _draws_table(dataset, "n_swaps"),
    "evaluation": lambda dataset: _error_table(dataset, "lesion", ranked=False),
    "effective_path": _lengths_table,
    "path_lengths": _lengths_table,
    "sampled_path_gradient": lambda dataset: _profile_table(dataset, "path_length"),
    "path_gradient": lambda dataset: _profile_table(dataset, "path_length"),
    "block_statistics": lambda dataset: _profile_table(dataset, "layer"),
    "training": lambda dataset: _profile_table(dataset, "epoch"),
    "comparison": _comparison_table,
    "claims": claims_table,
}
"""The table of each kind of result; a result of another kind has its variables listed."""


def _spread(size: int, most: int = _ROWS) -> list[int]:
    """Choose at most so many indices, evenly spread, both ends among them."""
    return sorted({round(i) for i in np.linspace(0, size - 1, min(size, most))})
