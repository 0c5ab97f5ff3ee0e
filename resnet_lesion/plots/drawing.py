"""What all figures have in common: axes, colours, labels, reference levels, points with their intervals."""

from __future__ import annotations

import textwrap
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from resnet_lesion.results.gradients import prefix_of
from resnet_lesion.results.quantities import has, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


# Okabe & Ito's palette, whose colours stay distinct in all common kinds of colour blindness
BLUE, VERMILLION, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#777777"


# colour and marker of each of several networks
LINES = ((BLUE, "o"), (GREEN, "D"), ("#CC79A7", "^"), (VERMILLION, "s"), ("#E69F00", "v"), ("#56B4E9", "P"))


COLOURS = "cividis"


STANDARD_ERRORS = 1.96  # half a 95 % interval


_SIZE = (8.0, 4.5)


_LAYER_LABELS = 18


_TICKS = 10


_LABEL_WIDTH = 38


def axes_or_new(ax: Axes | None) -> Axes:
    """Return the axes given, or those of a new figure."""
    if ax is not None:
        return ax
    _matplotlib()
    from matplotlib import pyplot

    _, new = pyplot.subplots(figsize=_SIZE, layout="constrained")
    return new


def new_figure() -> Figure:
    """Return a figure that pyplot does not know of."""
    _matplotlib()
    from matplotlib.figure import Figure

    return Figure(_SIZE, layout="constrained")  # not pyplot's, which would need a display or keep it open


def _matplotlib() -> None:
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("figures need matplotlib: pip install 'resnet-lesion[plot]'") from error


def require(dataset: xr.Dataset, name: str, *dims: str) -> None:
    """Refuse a dataset without this variable over these dimensions."""
    if not has(dataset, name, *dims):
        over = f" over {' and '.join(dims)}" if dims else ""
        kind = dataset.attrs.get("title")
        raise ValueError(
            f"expected a dataset with {name!r}{over}, got "
            + (f"{kind!r} with " if kind else "one with ")
            + f"{', '.join(map(str, dataset.data_vars)) or 'no variable'}. dataset.lesion.plot() draws what it has."
        )


def finished(ax: Axes, dataset: xr.Dataset, title: str, y: xr.DataArray, x: xr.DataArray | str) -> Axes:
    """Give the axes what all figures have in common."""
    ax.set_xlabel(capital(x if isinstance(x, str) else axis_label(x)))
    ax.set_ylabel(wrapped(capital(axis_label(y))))
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(True, axis="y", color="0.9")
    ax.set_axisbelow(True)
    above = bool(ax.get_legend_handles_labels()[1])
    if above:
        ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False, fontsize="small", borderaxespad=0.2)
    about = str(dataset.attrs.get("model", "")).replace("$", r"\$")  # not a formula
    ax.set_title(f"{title}: {about}" if about else title, loc="left", fontsize="medium", pad=24 if above else 6)
    return ax


def axis_label(array: xr.DataArray) -> str:
    """Return a variable's name and unit."""
    units = str(array.attrs.get("units", "1"))
    name = str(array.attrs.get("long_name", str(array.name).replace("_", " ")))
    return name if units in ("1", "") else f"{name} ({units})"


def wrapped(text: str) -> str:
    """Break a long label of the short vertical axis."""
    return textwrap.fill(text, _LABEL_WIDTH)  # the vertical axis is short


def capital(text: str) -> str:
    """Capitalise the first letter."""
    return text[:1].upper() + text[1:]


def reference_levels(ax: Axes, dataset: xr.Dataset) -> None:
    """Draw the errors of the whole network and of guessing."""
    n_classes = dataset.attrs.get("n_classes", dataset.sizes.get("class"))
    baseline = float(dataset["baseline_error"]) if "baseline_error" in dataset else None
    chance = 1 - 1 / int(n_classes) if n_classes else None
    close = baseline is not None and chance is not None and abs(chance - baseline) < 0.06
    if baseline is not None:
        level_line(ax, baseline, "whole network", "-", "top" if close else "center_baseline")
    if chance is not None:
        level_line(ax, chance, "chance", "--", "bottom" if close else "center_baseline")


def level_line(ax: Axes, level: float, name: str, style: str, side: Any = "center_baseline") -> None:
    """Draw a horizontal line, named at the right edge."""
    ax.axhline(level, color="black", linewidth=1, linestyle=style, zorder=1)
    ax.text(1.01, level, name, transform=ax.get_yaxis_transform(), va=side, fontsize="small")


def error_interval(dataset: xr.Dataset) -> tuple[NDArray[Any], NDArray[Any]] | None:
    """Return the ends of the error's interval, if the dataset has them."""
    if not {"error_low", "error_high"} <= set(dataset.data_vars):
        return None
    return dataset["error_low"].values, dataset["error_high"].values


def points_by_layer(
    ax: Axes, dataset: xr.Dataset, values: xr.DataArray, interval: tuple[NDArray[Any], NDArray[Any]] | None
) -> None:
    """Draw a point for each block, downsampling blocks apart."""
    x = np.arange(dataset.sizes["layer"])
    projects = dataset["is_downsampling"].values.astype(bool) if "is_downsampling" in dataset.coords else x < 0
    # a plain network has no shortcuts at all, so nothing is said about the others
    other = "other block" if projects.any() else None
    kinds = [(projects, "s", VERMILLION, "downsampling block"), (~projects, "o", BLUE, other)]
    for chosen, marker, colour, label in kinds:
        if chosen.any():
            part = None if interval is None else (interval[0][chosen], interval[1][chosen])
            points(ax, x[chosen], values.values[chosen], part, color=colour, marker=marker, label=label)
    ax.set_xticks(*layer_ticks(dataset), rotation=90, fontsize="x-small")
    ax.set_xlim(-1, len(x))


def points(
    ax: Axes,
    x: NDArray[Any],
    y: NDArray[Any],
    interval: tuple[NDArray[Any], NDArray[Any]] | None,
    *,
    color: str,
    marker: str = "o",
    label: str | None = None,
) -> None:
    """Draw points with error bars."""
    # rounding may put an end of the interval on the wrong side of the point
    bars = None if interval is None else np.clip([y - interval[0], interval[1] - y], 0, None)
    ax.errorbar(x, y, bars, fmt=marker, color=color, markersize=4, linewidth=1, capsize=0, label=label)


def integer_ticks(ax: Axes) -> None:
    """Put ticks of the horizontal axis at integers only."""
    from matplotlib.ticker import MaxNLocator

    ax.xaxis.set_major_locator(MaxNLocator(integer=True))


def ticks_at(ax: Axes, values: NDArray[Any]) -> None:
    """Put ticks of the horizontal axis at what was measured, or, if it is many, at every few of them."""
    from matplotlib.ticker import FixedLocator

    ax.xaxis.set_major_locator(FixedLocator(values.tolist(), nbins=_TICKS))


def layer_ticks(dataset: xr.Dataset) -> tuple[list[int], list[str]]:
    """Choose the blocks to name along an axis: the first of each stage, and between them as many as stay readable."""
    names = dataset["layer"].values.astype(str)
    stage = dataset["stage"].values if "stage" in dataset.coords else np.zeros(len(names), dtype=int)
    starts = [0, *(np.flatnonzero(np.diff(stage)) + 1).tolist(), len(names)]
    step = -(-len(names) // _LAYER_LABELS)
    ticks = [
        tick
        for start, stop in pairwise(starts)
        for tick in range(start, stop, step)
        if tick == start or stop - tick > step / 2
    ]
    return ticks, names[ticks].tolist()


def shade_effective(ax: Axes, dataset: xr.Dataset) -> None:
    """Shade the effective range of path lengths."""
    prefix = prefix_of(dataset)
    ends = f"{prefix}effective_low", f"{prefix}effective_high"
    if not set(ends) <= set(dataset.variables):
        return
    low, high = (int(dataset[end]) for end in ends)
    label = f"effective range, {low} to {high} blocks"
    if f"{prefix}effective_path_fraction" in dataset:
        label += f": {percent(float(dataset[f'{prefix}effective_path_fraction']))} of all paths"
    ax.axvspan(low - 0.5, high + 0.5, color=GREEN, alpha=0.2, linewidth=0, zorder=0, label=label)
