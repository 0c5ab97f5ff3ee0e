"""What a result says, in words: the readable summary of a file, and one line of findings per question."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

_WIDTH = 100
_ROWS = 6
_NUMBER = re.compile(r"-?(\d|nan|inf)|$")


def groups(result: xr.Dataset | xr.DataTree) -> Iterator[tuple[str, xr.Dataset]]:
    """Go through the datasets of a result.

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


def findings(result: xr.Dataset | xr.DataTree) -> list[str]:
    """Say what the data show, a sentence for each question that they answer.

    Every number is computed from the result; nothing is taken from the paper.

    Args:
        result: What an analyzer or :func:`resnet_lesion.study` returned.

    Returns:
        Sentences, in the order of the groups.
    """
    return [sentence for _, dataset in groups(result) for sentence in _findings(dataset)]


def summarise(result: xr.Dataset | xr.DataTree) -> str:
    """Describe a result in readable text.

    Args:
        result: What an analyzer or :func:`resnet_lesion.study` returned, or any other Dataset or DataTree.

    Returns:
        Where the result came from; then, for each group, its title, a short table and what it shows.
    """
    datasets = list(groups(result))
    if not datasets:
        return "The result is empty: no group holds a variable."
    parts: list[str] = []
    known: dict[str, object] = {}
    for group, dataset in datasets:
        source = _source(dataset.attrs)
        new = {name: value for name, value in source.items() if known.get(name) != value}  # a study's groups share most
        known |= source
        parts.append("\n".join(f"{name:<9} {value}" for name, value in new.items()))
        title = dataset.attrs.get("title", "")
        parts.append("\n".join([" - ".join(filter(None, [group, title])) or "Dataset", *_body(dataset)]))
    return "\n\n".join(filter(None, parts))


def summarise_claims(claims: xr.Dataset) -> str:
    """Write what the paper claims beside what came out, three lines for each claim.

    Args:
        claims: What :func:`resnet_lesion.claims.claims` returned.

    Returns:
        The text.
    """
    lines: list[str] = []
    for i in range(claims.sizes["claim"]):
        row = claims.isel(claim=i)
        paper, ours, low, high = (float(row[name]) for name in ("paper", "ours", "low", "high"))
        interval = f" ({low:.4g} to {high:.4g})" if np.isfinite([low, high]).all() else ""
        lines += [
            f"{row.figure.item():<10}{row.statement.item()}: {'yes' if row.agrees else 'NO'}",
            f"{'':<10}{row.quantity.item()}: {ours:.4g}{interval}"
            + (f"; the paper {paper:.4g}" if np.isfinite(paper) else ""),
            f"{'':<10}yes if {row.criterion.item()}",
        ]
    return "\n".join(lines)


def claims_table(claims: xr.Dataset) -> list[list[str]]:
    """Tabulate what the paper claims beside what came out.

    Args:
        claims: What :func:`resnet_lesion.claims.claims` returned.

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


def as_json(result: xr.Dataset | xr.DataTree) -> str:
    """Write a result, with all of its values, as JSON.

    Args:
        result: What an analyzer or :func:`resnet_lesion.study` returned, or any other Dataset or DataTree.

    Returns:
        A Dataset as an object with ``dims``, ``coords``, ``data_vars`` and ``attrs``, as xarray's ``to_dict`` makes it;
        a DataTree as one with ``attrs`` and ``groups``, the datasets by their paths. What is not a number is null.
        Attributes that are JSON themselves, as ``options`` and ``versions`` are, become objects.
    """
    if isinstance(result, xr.Dataset):
        return json.dumps(_plain(result.to_dict()), allow_nan=False)
    datasets = {group: dataset.to_dict() for group, dataset in groups(result)}
    return json.dumps(_plain({"attrs": result.attrs, "groups": datasets}), allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None
    if isinstance(value, str) and value.startswith(("{", "[")):
        with suppress(ValueError):
            return json.loads(value)
    return value


def percent(share: float) -> str:
    """Write a share as a percentage of two or three digits."""
    return f"{100 * share:.{2 if share < 0.1 else 3}g} %"


def _findings(dataset: xr.Dataset) -> Iterator[str]:
    for (name, *dims), find in _FINDINGS.items():
        if has(dataset, name, *dims):
            yield find(dataset)


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
        f"the worst is {percent(float(worst))}, without {worst['layer'].item()}."
    )


def _random_deletion(dataset: xr.Dataset) -> str:
    mean = mean_over_draws(dataset["error"], "n_deleted").sortby("n_deleted")
    points = [
        f"{percent(float(mean[i]))} with {_blocks(mean['n_deleted'][i])}" for i in _three(mean["n_deleted"].values)
    ]
    text = f"Many blocks deleted: the mean error is {_listed(points)} deleted"
    return f"{text}; normalised area under the curve {area(mean):.2f}." if mean.size > 1 else f"{text}."


def area(mean_error: xr.DataArray) -> float:
    """Return the area under mean error against ``n_deleted``, divided by the range of ``n_deleted``."""
    mean_error = mean_error.sortby("n_deleted")
    n_deleted = mean_error["n_deleted"].values
    return float(np.trapezoid(mean_error.values, n_deleted) / (n_deleted[-1] - n_deleted[0]))


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
    return (
        f"Gradient along one path: with each block that the path passes its mean norm changes by a factor of "
        f"{factor:.3g}, fitted over {int(lengths.min())} to {int(lengths.max())} blocks."
    )


def decay_factor(gradient: xr.DataArray) -> float:
    """Return the factor per block of the exponential fitted to a gradient norm against ``path_length``."""
    positive = gradient.where((gradient > 0) & np.isfinite(gradient)).dropna("path_length")
    if positive.size < 2:
        return float("nan")
    slope, _ = np.polyfit(positive["path_length"].values, np.log(positive.values), 1)
    return float(np.exp(slope))


def _exact(dataset: xr.Dataset) -> str:
    gradient = dataset["sum_gradient_norm"]
    largest = gradient.isel(path_length=int(gradient.argmax("path_length")))
    return (
        "Gradient of all paths of one length together: its norm is largest, "
        f"{float(largest):.3g}, for paths through {_blocks(largest['path_length'])}."
    )


def _comparison(dataset: xr.Dataset) -> str:
    errors = dataset["error"].mean("seed")
    first, second = (f"{name.item()} errs {percent(float(errors.sel(network=name)))}" for name in errors["network"])
    n, p = dataset.sizes["seed"], float(dataset["welch_p_value"])
    test = f"over {n} trainings of each p = {p:.2g} (Welch's t-test)" if np.isfinite(p) else "trained once each"
    return f"{first}, {second}: {test}."


_FINDINGS: dict[tuple[str, ...], Callable[[xr.Dataset], str]] = {
    ("error", "layer"): _deletion,
    ("error", "n_deleted"): _random_deletion,
    ("remaining_fraction", "n_deleted"): _remaining,
    ("kendall_tau",): _reorder,
    ("layer_gradient_norm", "layer", "path_length"): _exact,
    ("gradient_norm", "path_length"): _sampled,
    ("path_fraction", "path_length"): _effective,
    ("welch_p_value",): _comparison,
}


def _source(attrs: dict[Any, Any]) -> dict[str, object]:
    """Say where a result came from."""
    versions = attrs.get("versions")
    dtype = [attrs.get("device"), attrs.get("dtype")]
    if attrs.get("autocast", "None") != "None":
        dtype.append(f"autocast to {attrs['autocast']}")
    lines = {
        "model": attrs.get("model"),
        "weights": f"sha256 {attrs['weights_sha256'][:16]}..." if "weights_sha256" in attrs else None,
        "blocks": attrs.get("n_blocks"),
        "data": attrs.get("data"),
        "device": ", ".join(str(part) for part in dtype if part),
        "versions": ", ".join(f"{k} {v}" for k, v in json.loads(versions).items()) if versions else None,
    }
    return {name: value for name, value in lines.items() if value}


def table_of(dataset: xr.Dataset) -> list[list[str]]:
    """Tabulate what matters most in a dataset.

    Args:
        dataset: A result, or any other Dataset.

    Returns:
        Rows of cells, the head first: a result's numbers, some of them where a dimension is long; else the variables.
    """
    tabulate = next((table for needs, table in _TABLES.items() if has(dataset, *needs)), _variables)
    return tabulate(dataset)


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


def _body(dataset: xr.Dataset) -> list[str]:
    sentences = [
        textwrap.fill(sentence, _WIDTH, initial_indent="  ", subsequent_indent="    ")
        for sentence in _findings(dataset)
    ]
    if has(dataset, "agrees", "claim"):  # sentences, too long for a table
        return [f"  {line}" for line in summarise_claims(dataset).splitlines()]
    return [*_aligned(table_of(dataset)), *sentences]


def _error_table(dataset: xr.Dataset, dim: str, ranked: bool) -> list[list[str]]:
    """Tabulate the variables that say how well a lesioned network does, for some coordinates along one dimension."""
    if ranked:
        chosen = np.argsort(-dataset["error"].values, kind="stable")[:_ROWS].tolist()
        heading = f"{dim} (the {len(chosen)} worst of {dataset.sizes[dim]})"
    else:
        chosen = _spread(dataset.sizes[dim])
        heading = str(dataset[dim].attrs.get("long_name", dim))
    rows = [[heading, "error", "95 % interval", "loss", "agreement"]]
    for i in chosen:
        one = dataset.isel({dim: i})
        low, high = one.get("error_low"), one.get("error_high")
        interval = f"{float(low):.3f} to {float(high):.3f}" if low is not None and high is not None else ""
        rest = [f"{float(one[name]):.3f}" if name in one else "" for name in ("loss", "agreement")]
        rows.append([str(one[dim].item()), f"{float(one['error']):.3f}", interval, *rest])
    return rows


def _draws_table(dataset: xr.Dataset, dim: str) -> list[list[str]]:
    """Tabulate mean and extremes over the draws along one dimension."""
    columns = [name for name in ("kendall_tau", "error", "loss", "agreement") if has(dataset, name, dim)]
    rows = [[str(dataset[dim].attrs.get("long_name", dim)), *(f"mean {name}" for name in columns), "error, range"]]
    for i in _spread(dataset.sizes[dim]):
        one = dataset.isel({dim: i})
        means = [f"{float(one[name].mean()):.3f}" for name in columns]
        extremes = f"{float(one['error'].min()):.3f} to {float(one['error'].max()):.3f}"
        rows.append([str(one[dim].item()), *means, extremes])
    return rows


def _profile_table(dataset: xr.Dataset, dim: str, *leave_out: str) -> list[list[str]]:
    """Tabulate every number along one dimension, but for some."""
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


_TABLES: dict[tuple[str, ...], Callable[[xr.Dataset], list[list[str]]]] = {
    ("error", "n_deleted"): lambda dataset: _draws_table(dataset, "n_deleted"),
    ("error", "n_swaps"): lambda dataset: _draws_table(dataset, "n_swaps"),
    ("error", "layer"): lambda dataset: _error_table(dataset, "layer", ranked=True),
    ("error", "lesion"): lambda dataset: _error_table(dataset, "lesion", ranked=False),
    ("path_fraction", "path_length"): lambda dataset: _profile_table(
        dataset, "path_length", "path_count", "mean_gradient_norm", "sum_gradient_norm"
    ),
    ("sum_gradient_norm", "path_length"): lambda dataset: _profile_table(dataset, "path_length"),
    ("mean_gradient_norm", "path_length"): lambda dataset: _profile_table(dataset, "path_length"),
    ("welch_p_value",): _comparison_table,
    ("agrees", "claim"): claims_table,
    ("train_loss", "epoch"): lambda dataset: _profile_table(dataset, "epoch"),
    ("branch_to_skip_ratio", "layer"): lambda dataset: _profile_table(dataset, "layer"),
}


def is_number(cell: str) -> bool:
    """Tell whether a table's cell is empty or begins with a number."""
    return _NUMBER.match(cell) is not None


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Write rows as lines of text: words to the left, and numbers, but for the first column, to the right."""
    columns = []
    for i, column in enumerate(zip(*rows, strict=True)):
        width = max(map(len, column))
        numbers = i > 0 and all(map(is_number, column[1:]))
        columns.append([cell.rjust(width) if numbers else cell.ljust(width) for cell in column])
    return ["  ".join(["", *cells]).rstrip() for cells in zip(*columns, strict=True)]


def _spread(size: int, most: int = _ROWS) -> list[int]:
    """Choose at most so many indices, evenly spread, both ends among them."""
    return sorted({round(i) for i in np.linspace(0, size - 1, min(size, most))})


def _three(values: NDArray[Any]) -> list[int]:
    """Choose at most three indices of sorted values: both ends, and the value closest to half-way."""
    return sorted({0, int(np.abs(values - (values[0] + values[-1]) / 2).argmin()), len(values) - 1})


def _listed(items: Sequence[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def _blocks(number: int | xr.DataArray) -> str:
    return "1 block" if int(number) == 1 else f"{int(number)} blocks"
