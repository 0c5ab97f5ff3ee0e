"""A variable says what it is: long name, unit, and what it is over the images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import xarray as xr


def variable(
    dims: Sequence[str], values: Any, long_name: str, units: str = "1", over_images: str | None = None
) -> xr.Variable:
    """Make a variable that says what it is.

    Args:
        dims: Its dimensions.
        values: Its values.
        long_name: What it is, in words.
        units: Its unit; "1" for counts and fractions.
        over_images: "sum", "mean" or "maximum" if that is what it is over the images, which says how results of
            different images are merged; written as in the CF conventions. What follows from other variables has none.
    """
    attrs = {"long_name": long_name, "units": units}
    if over_images is not None:
        attrs["cell_methods"] = f"sample: {over_images}"
    return xr.Variable(tuple(dims), values, attrs)


def provenance(dataset: xr.Dataset, attrs: Mapping[str, str | int]) -> xr.Dataset:
    """Return the dataset with the attributes that :func:`origin` made, except those that it already has."""
    _name_coordinates(dataset)
    return dataset.assign_attrs({**attrs, **dataset.attrs})


_COORDINATES = {
    "lesion": "number of the lesion",
    "position": "position in the network",
    "n_deleted": "number of deleted blocks",
    "n_swaps": "number of swaps",
    "draw": "number of the random repetition",
    "path_length": "number of branches on the path",
    "class": "class label",
    "sample": "number of the image",
}


def _name_coordinates(dataset: xr.Dataset) -> None:
    for name, long_name in _COORDINATES.items():
        if name in dataset.coords:
            dataset[name].attrs = {"long_name": long_name, "units": "1"}
