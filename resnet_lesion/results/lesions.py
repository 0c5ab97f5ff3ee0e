"""What a lesion sweep counts, laid out with names, and what follows from the counts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from resnet_lesion.network.orders import IntArray
from resnet_lesion.results.statistics import wilson_interval
from resnet_lesion.results.variables import variable


@dataclass(frozen=True)
class Counts:
    """What was counted under each row; row 0 is the whole network, the others are the lesions.

    Attributes:
        rows: (n_rows, n_blocks) order rows.
        evaluated: (n_rows,) whether the row is among this shard's, and nothing was counted for the others; None if the
            lesions are not cut.
        correct_by_class: (n_rows, n_classes) images of the class classified correctly.
        agreeing: (n_rows,) images predicted as by the whole network.
        loss: (n_rows,) mean cross-entropy.
        total_by_class: (n_classes,) images.
        block_evaluations: Number of blocks computed per image for the lesions.
        naive_block_evaluations: Number of blocks that one pass for each lesion computes.
    """

    rows: IntArray
    evaluated: NDArray[np.bool_] | None
    correct_by_class: IntArray
    agreeing: IntArray
    loss: NDArray[np.float64]
    total_by_class: IntArray
    block_evaluations: int
    naive_block_evaluations: int


def lesion_dataset(counts: Counts, coords: Mapping[str, Iterable[Any]], *, by_class: bool) -> xr.Dataset:
    """Lay counts out over the given coordinates, the last running fastest, with what follows from them."""
    arrays = {dim: np.array(list(values)) for dim, values in coords.items()}
    dims, shape = tuple(arrays), [len(values) for values in arrays.values()]

    def over(values: NDArray[Any]) -> NDArray[Any]:
        return values[1:].reshape(shape + list(values.shape[1:]))

    correct = counts.correct_by_class.sum(1)
    dataset = xr.Dataset(
        {
            "correct": variable(dims, over(correct), "images classified correctly", over_images="sum"),
            "loss": variable(dims, over(counts.loss), "mean cross-entropy", "nat", over_images="mean"),
            "agreeing": variable(
                dims, over(counts.agreeing), "images predicted as by the whole network", over_images="sum"
            ),
            "baseline_correct": variable(
                (), correct[0], "images the whole network classifies correctly", over_images="sum"
            ),
            "baseline_loss": variable(
                (), counts.loss[0], "mean cross-entropy of the whole network", "nat", over_images="mean"
            ),
            "total": variable((), counts.total_by_class.sum(), "images", over_images="sum"),
        },
        coords=arrays,
    )
    if by_class:
        dataset["correct_by_class"] = variable(
            (*dims, "class"),
            over(counts.correct_by_class),
            "images of the class classified correctly",
            over_images="sum",
        )
        dataset["total_by_class"] = variable(
            ("class",), counts.total_by_class, "images of the class", over_images="sum"
        )
        dataset = dataset.assign_coords({"class": np.arange(len(counts.total_by_class))})
    if counts.evaluated is not None:
        dataset["evaluated"] = variable(dims, over(counts.evaluated), "whether the lesion is among the shard's")
    dataset.attrs |= {
        "block_evaluations": counts.block_evaluations,
        "naive_block_evaluations": counts.naive_block_evaluations,
        "n_classes": len(counts.total_by_class),
    }
    return lesion_rates(dataset)


def lesion_rates(dataset: xr.Dataset) -> xr.Dataset:
    """Return the dataset with all that follows from its counts, NaN for lesions that another shard evaluates."""
    dims, total = dataset.correct.dims, int(dataset.total)
    correct, baseline = dataset.correct.values, int(dataset.baseline_correct)
    low, high = wilson_interval(total - correct, total)
    rates = {
        "agreement": variable(
            dims, dataset.agreeing.values / total, "share of images predicted as by the whole network"
        ),
        "error": variable(dims, 1 - correct / total, "error"),
        "error_low": variable(dims, low, "error, lower end of its 95 % Wilson interval"),
        "error_high": variable(dims, high, "error, upper end of its 95 % Wilson interval"),
    }
    rates["baseline_error"] = variable((), 1 - baseline / total, "error of the whole network")
    dataset = dataset.assign(rates)
    if "evaluated" in dataset:
        dataset = dataset.assign(
            {name: dataset[name].where(dataset.evaluated) for name in ("loss", *rates) if name != "baseline_error"}
        )
    return dataset


def refuse_impossible(dataset: xr.Dataset) -> None:
    """Refuse counts that no run makes: more images right than there are, or classes that do not add up.

    Raises:
        ValueError: If there are such counts.
    """
    counts = {name: array for name, array in dataset.data_vars.items() if array.dtype.kind in "iu"}
    for name, limit in _LIMITS.items():
        if {name, limit} <= counts.keys() and set(counts[limit].dims) <= set(counts[name].dims):
            possible = (counts[name] >= 0) & (counts[name] <= counts[limit])
            if not bool(possible.all()):
                raise ValueError(f"{name} is not everywhere from 0 to {limit}")
    for name, count in _SUMS.items():
        comparable = {name, count} <= counts.keys() and set(counts[name].dims) == {*counts[count].dims, "class"}
        if comparable and not bool((counts[name].sum("class") == counts[count]).all()):
            raise ValueError(f"{name} does not add up to {count}")


# what is counted, and among how many images
_LIMITS = {
    "correct": "total",
    "agreeing": "total",
    "baseline_correct": "total",
    "correct_by_class": "total_by_class",
}

# what is counted for each class, and for all of them
_SUMS = {"correct_by_class": "correct", "total_by_class": "total"}


def order_variable(dims: Sequence[str], rows: IntArray) -> xr.Variable:
    """Return order rows as a variable over the given dimensions and ``position``."""
    return variable((*dims, "position"), rows, "index of the block that runs at the position, -1 for none")
