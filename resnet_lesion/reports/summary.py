"""A result as text to read, or as JSON."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import xarray as xr

from resnet_lesion.reports.findings import findings
from resnet_lesion.reports.tables import is_number, table_of
from resnet_lesion.results.kinds import kinds_of
from resnet_lesion.results.quantities import groups
from resnet_lesion.runs.checkpoint import as_object
from resnet_lesion.runs.shards import Shard
from resnet_lesion.text import harmless

_WIDTH = 100


def summarise(result: xr.Dataset | xr.DataTree) -> str:
    """Describe a result in readable text.

    Args:
        result: What an analyzer or :func:`resnet_lesion.study` returned, or any other Dataset or DataTree.

    Returns:
        Where the result came from; then, for each group, its title, a short table and what it shows. What a file says
        that would steer a terminal is written as escapes.
    """
    datasets = list(groups(result))
    if not datasets:
        return "The result is empty: no group holds a variable."
    parts: list[str] = []
    known: dict[str, object] = {}
    for group, dataset in datasets:
        source = source_of(dataset.attrs)
        new = {name: value for name, value in source.items() if known.get(name) != value}  # a study's groups share most
        known |= source
        parts.append("\n".join(f"{name:<9} {value}" for name, value in new.items()))
        title = dataset.attrs.get("title", "")
        parts.append("\n".join([" - ".join(filter(None, [group, title])) or "Dataset", *_body(dataset)]))
    return harmless("\n\n".join(filter(None, parts)))


def summarise_claims(claims: xr.Dataset) -> str:
    """Write what the paper claims beside what came out, three lines for each claim.

    Args:
        claims: What :func:`resnet_lesion.paper.claims.claims` returned.

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
        return json.dumps(_strict_json(result.to_dict()), allow_nan=False)
    datasets = {group: dataset.to_dict() for group, dataset in groups(result)}
    return json.dumps(_strict_json({"attrs": result.attrs, "groups": datasets}), allow_nan=False)


def _strict_json(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _strict_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strict_json(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None
    if isinstance(value, str) and value.startswith(("{", "[")):
        with suppress(ValueError):
            return json.loads(value)
    return value


def source_of(attrs: dict[Any, Any]) -> dict[str, object]:
    """Say where a result came from."""
    versions = attrs.get("versions")
    dtype = [attrs.get("device"), attrs.get("dtype")]
    if attrs.get("autocast", "None") != "None":
        dtype.append(f"autocast to {attrs['autocast']}")
    shard = attrs.get("shard")
    lines = {
        "model": attrs.get("model"),
        "weights": f"sha256 {attrs['weights_sha256'][:16]}..." if "weights_sha256" in attrs else None,
        "blocks": attrs.get("n_blocks"),
        "data": attrs.get("data"),
        "shard": f"{Shard.from_json(shard)}; resnet-lesion merge puts all together" if shard else None,
        "proof": _proof(attrs["proof"]) if "proof" in attrs else None,
        "device": ", ".join(str(part) for part in dtype if part),
        "versions": ", ".join(f"{k} {v}" for k, v in json.loads(versions).items()) if versions else None,
    }
    return {name: value for name, value in lines.items() if value}


def _proof(text: str) -> str:
    """Say in a line what the network showed on the first images."""
    found = as_object(text)
    tried = [f"{name} {found[name]:.1g}" for name in ("blocks", "alone", "engine") if found.get(name) is not None]
    said = f"deviations on the first images: {', '.join(tried)}"
    if not found.get("independent", True):
        return f"{said}; results depend on the batches"
    return said if found.get("stackable", True) else f"{said}; lesions were run one by one"


def _body(dataset: xr.Dataset) -> list[str]:
    sentences = [
        textwrap.fill(sentence, _WIDTH, initial_indent="  ", subsequent_indent="    ") for sentence in findings(dataset)
    ]
    if "claims" in kinds_of(dataset):  # sentences, too long for a table
        return [f"  {line}" for line in summarise_claims(dataset).splitlines()]
    return [*_aligned(table_of(dataset)), *sentences]


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Write rows as lines of text: words to the left, and numbers, except in the first column, to the right."""
    columns = []
    for i, column in enumerate(zip(*rows, strict=True)):
        width = max(map(len, column))
        numbers = i > 0 and all(map(is_number, column[1:]))
        columns.append([cell.rjust(width) if numbers else cell.ljust(width) for cell in column])
    return ["  ".join(["", *cells]).rstrip() for cells in zip(*columns, strict=True)]
