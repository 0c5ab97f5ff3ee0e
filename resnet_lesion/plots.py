"""The figures: each function takes a result and draws it, on the axes given or on new ones.

Example:
    >>> import resnet_lesion as rl, timm, torch
    >>> model = timm.create_model("resnet18", num_classes=10, zero_init_last=False)
    >>> data = torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 3])
    >>> tree = rl.study(model, data, n_deleted=[1, 4], n_swaps=[1], n_draws=2, n_paths=2, show_progress=False)
    >>> from matplotlib.figure import Figure
    >>> error_by_number_deleted(tree["random_deletion"].to_dataset(), Figure().subplots()).get_xlabel()
    'Number of deleted blocks'
    >>> sorted(figures(tree))[-2:]
    ['reorder-error_by_kendall_tau', 'sampled_path_gradient-mean_gradient_by_length']
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from resnet_lesion.drawing import (
    BLUE,
    COLOURS,
    GREY,
    LINES,
    axes_or_new,
    axis_label,
    capital,
    error_interval,
    finished,
    integer_ticks,
    layer_ticks,
    level_line,
    new_figure,
    points,
    points_by_layer,
    reference_levels,
    require,
    shade_effective,
    wrapped,
)
from resnet_lesion.quantities import groups, has, mean_over_draws, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DECADES = 12
_STANDARD_ERRORS = 1.96  # half a 95 % interval


def error_by_block(dataset: xr.Dataset, ax: Axes | None = None) -> Axes:
    """Draw the error with each block deleted alone: figures 3 and 4 of the paper.

    Args:
        dataset: What ``Deletion.analyze`` returned without ``n_deleted``.
        ax: Where to draw; None for a new figure.

    Returns:
        The axes.

    Raises:
        ValueError: If the dataset has no ``error`` over ``layer``.
    """
    require(dataset, "error", "layer")
    ax = axes_or_new(ax)
    reference_levels(ax, dataset)
    points_by_layer(ax, dataset, dataset["error"], error_interval(dataset))
    ax.set_ylim(bottom=0)
    return finished(ax, dataset, "Error with each block deleted alone", dataset["error"], "deleted block")


def compare_deletions(results: Mapping[str, xr.Dataset], ax: Axes | None = None) -> Axes:
    """Draw the error with each block deleted alone, of several networks: figures 3 and 8 of the paper.

    Args:
        results: What ``Deletion.analyze`` returned without ``n_deleted``, by the networks' names; at most six.
        ax: Where to draw; None for a new figure.

    Returns:
        The axes. Networks of different depth share the axis, from their first block to their last.

    Raises:
        ValueError: If there is nothing to draw, or a dataset has no ``error`` over ``layer``.
    """
    if not 1 <= len(results) <= len(LINES):
        raise ValueError(f"expected results of 1 to {len(LINES)} networks, got {len(results)}.")
    ax = axes_or_new(ax)
    first = next(iter(results.values()))
    reference_levels(ax, first.drop_vars("baseline_error", errors="ignore"))
    for (name, dataset), (colour, marker) in zip(results.items(), LINES, strict=False):
        require(dataset, "error", "layer")
        error = dataset["error"].values
        x = np.linspace(0, 1, len(error)) if len(error) > 1 else np.zeros(1)
        interval = error_interval(dataset)
        label = f"{name.replace('_', ' ')} ({len(error)} blocks)"
        ax.plot(x, error, color=colour, linewidth=0.8, alpha=0.6)
        points(ax, x, error, interval, color=colour, marker=marker, label=label)
        if "is_downsampling" in dataset.coords and dataset["is_downsampling"].any():
            down = dataset["is_downsampling"].values.astype(bool)
            ax.plot(x[down], error[down], "o", markersize=11, markerfacecolor="none", color=colour)
    ax.set_ylim(bottom=0)
    ax.set_xticks([0, 0.5, 1], ["first", "middle", "last"])
    where = "deleted block, by its place in the network (ringed: downsampling)"
    finished(ax, xr.Dataset(), "Error with each block deleted alone", first["error"], where)
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False, fontsize="small", borderaxespad=0.2)
    ax.set_title(ax.get_title("left"), loc="left", fontsize="medium", pad=18 * ((len(results) + 1) // 2) + 6)
    return ax


def training_curves(dataset: xr.Dataset, ax: Axes | None = None) -> Axes:
    """Draw how the training went.

    Args:
        dataset: What :func:`resnet_lesion.train` returned.
        ax: Where to draw; None for a new figure.

    Returns:
        The axes: the validation error against the epoch if there was validation data, else the loss.

    Raises:
        ValueError: If the dataset has no ``train_loss`` over ``epoch``.
    """
    require(dataset, "train_loss", "epoch")
    ax = axes_or_new(ax)
    curve = dataset["validation_error" if "validation_error" in dataset else "train_loss"]
    ax.plot(curve["epoch"].values, curve.values, "-o", color=BLUE, markersize=4)
    ax.set_ylim(bottom=0)
    integer_ticks(ax)
    return finished(ax, dataset, "Training", curve, dataset["epoch"])


def error_by_lesion(dataset: xr.Dataset, ax: Axes | None = None) -> Axes:
    """Draw the error under each of the lesions that were asked for.

    Args:
        dataset: What :func:`resnet_lesion.evaluate` returned.
        ax: Where to draw; None for a new figure.

    Returns:
        The axes.

    Raises:
        ValueError: If the dataset has no ``error`` over ``lesion``.
    """
    require(dataset, "error", "lesion")
    ax = axes_or_new(ax)
    reference_levels(ax, dataset)
    points(ax, dataset["lesion"].values, dataset["error"].values, error_interval(dataset), color=BLUE)
    ax.set_ylim(bottom=0)
    integer_ticks(ax)
    return finished(ax, dataset, "Error under each lesion", dataset["error"], dataset["lesion"])


def error_by_number_deleted(dataset: xr.Dataset, ax: Axes | None = None) -> Axes:
    """Draw the error against the number of blocks deleted at random: figure 5a of the paper.

    Args:
        dataset: What ``Deletion.analyze`` returned with ``n_deleted``.
        ax: Where to draw; None for a new figure.

    Returns:
        The axes.

    Raises:
        ValueError: If the dataset has no ``error`` over ``n_deleted``.
    """
    require(dataset, "error", "n_deleted")
    ax = axes_or_new(ax)
    error = dataset["error"].sortby("n_deleted")
    others = [dim for dim in error.dims if dim != "n_deleted"]
    draws = int(np.prod([error.sizes[dim] for dim in others]))
    x = error["n_deleted"].values
    reference_levels(ax, dataset)
    if draws > 1:
        low, high = error.quantile([0.1, 0.9], others).values
        ax.fill_between(x, low, high, color=BLUE, alpha=0.2, linewidth=0, label="10th to 90th percentile")
        ax.plot(np.repeat(x, draws), _flat(error, "n_deleted"), ".", color=BLUE, alpha=0.5, label="one draw")
    label = f"mean of {draws} draws" if draws > 1 else "error"
    ax.plot(x, mean_over_draws(error, "n_deleted").values, "-o", color=BLUE, markersize=4, label=label)
    ax.set_ylim(bottom=0)
    integer_ticks(ax)
    return finished(ax, dataset, "Error with many blocks deleted", error, dataset["n_deleted"])


def error_by_kendall_tau(dataset: xr.Dataset, ax: Axes | None = None) -> Axes:
    """Draw the error against how far the blocks are out of order: figure 5b of the paper.

    Args:
        dataset: What ``Reorder.analyze`` returned.
        ax: Where to draw; None for a new figure.

    Returns:
        The axes; Kendall's tau falls from left to right, so that the damage grows.

    Raises:
        ValueError: If the dataset has no ``kendall_tau`` and ``error``.
    """
    require(dataset, "kendall_tau")
    require(dataset, "error")
    ax = axes_or_new(ax)
    tau, error = dataset["kendall_tau"], dataset["error"]
    reference_levels(ax, dataset)
    ax.plot(tau.values.ravel(), error.values.ravel(), ".", color=BLUE, alpha=0.5, label="one draw")
    if "n_swaps" in tau.dims and tau.ndim > 1:
        mean_tau = mean_over_draws(tau, "n_swaps")
        ranked = mean_tau.argsort().values
        mean_error = mean_over_draws(error, "n_swaps").values[ranked]
        ax.plot(mean_tau.values[ranked], mean_error, "-o", color=BLUE, markersize=4, label="mean by number of swaps")
    ax.set_ylim(bottom=0)
    ax.invert_xaxis()
    return finished(ax, dataset, "Error with blocks swapped", error, tau)


def path_lengths(dataset: xr.Dataset, ax: Axes | None = None) -> Axes:
    """Draw how long the paths through the network are: figure 6a of the paper.

    Args:
        dataset: What ``EffectivePath.analyze`` returned, or any dataset with ``path_fraction`` over ``path_length``.
        ax: Where to draw; None for a new figure.

    Returns:
        The axes.

    Raises:
        ValueError: If the dataset has no ``path_fraction`` over ``path_length``.
    """
    require(dataset, "path_fraction", "path_length")
    ax = axes_or_new(ax)
    fraction = dataset["path_fraction"]
    low, high = _central(fraction.values)
    share = percent(float(fraction.values[low : high + 1].sum()))
    x = fraction["path_length"].values
    bars = ax.bar(x, fraction.values, color=GREY, width=0.8)
    for bar in bars[low : high + 1]:
        bar.set_color(BLUE)
    bars[low].set_label(f"{x[low]} to {x[high]} blocks: {share} of all paths")
    shade_effective(ax, dataset)
    return finished(ax, dataset, "Lengths of all paths", fraction, dataset["path_length"])


def remaining_paths(dataset: xr.Dataset, ax: Axes | None = None) -> Axes:
    """Draw which share of the paths of each length is left after deleting blocks: figure 7 of the paper.

    Args:
        dataset: What ``Deletion.analyze`` returned with ``n_deleted``.
        ax: Where to draw; None for a new figure.

    Returns:
        The axes, with a line for each of at most six numbers of deleted blocks.

    Raises:
        ValueError: If the dataset has no ``remaining_fraction`` over ``path_length``.
    """
    from matplotlib import colormaps

    require(dataset, "remaining_fraction", "n_deleted", "path_length")
    ax = axes_or_new(ax)
    remaining = dataset["remaining_fraction"].sortby("n_deleted")
    size = remaining.sizes["n_deleted"]
    chosen = np.unique(np.linspace(0, size - 1, min(size, 6)).round().astype(int))
    for i, shade in zip(chosen, np.linspace(0, 0.85, len(chosen)), strict=True):
        one = remaining.isel(n_deleted=i)
        label = f"{one['n_deleted'].item()}"
        ax.plot(one["path_length"].values, one.values, color=colormaps[COLOURS](shade), linewidth=2, label=label)
    ax.set_ylim(0, 1.02)
    finished(ax, dataset, "Paths that deletion leaves", remaining, dataset["path_length"])
    # deleting blocks never leaves more long paths than short ones, so that corner is empty
    ax.legend(loc="upper right", frameon=False, fontsize="small", title="blocks deleted", title_fontsize="small")
    ax.set_title(ax.get_title("left"), loc="left", fontsize="medium", pad=6)
    return ax


def mean_gradient_by_length(dataset: xr.Dataset, ax: Axes | None = None) -> Axes:
    """Draw the mean gradient norm of single paths against their length: figure 6b of the paper.

    Args:
        dataset: What ``PathGradient.analyze(method="sample")`` or ``EffectivePath.analyze`` returned.
        ax: Where to draw; None for a new figure.

    Returns:
        The axes, with a logarithmic scale. The 95 % interval is that of the mean's logarithm (delta method), so that
        it stays positive however few paths were drawn.

    Raises:
        ValueError: If the dataset has no ``mean_gradient_norm`` over ``path_length``.
    """
    require(dataset, "mean_gradient_norm", "path_length")
    ax = axes_or_new(ax)
    mean = dataset["mean_gradient_norm"]
    x = mean["path_length"].values
    y, bars, label = _positive(mean.values), None, "mean over paths and images"
    if has(dataset, "gradient_norm_standard_error", "path_length"):
        factor = np.exp(_STANDARD_ERRORS * dataset["gradient_norm_standard_error"].values / y)
        bars = np.stack([y - y / factor, y * factor - y])
        label += " with 95 % interval"
    ax.errorbar(x, y, bars, fmt="-o", color=BLUE, markersize=4, linewidth=1, label=label)
    _logarithmic(ax, mean.values)
    return finished(ax, dataset, "Gradient along single paths", mean, dataset["path_length"])


def sum_gradient_by_length(dataset: xr.Dataset, ax: Axes | None = None) -> Axes:
    """Draw the norm of the gradient that all paths of one length carry together.

    Args:
        dataset: What ``PathGradient.analyze(method="exact")`` returned.
        ax: Where to draw; None for a new figure.

    Returns:
        The axes, with a logarithmic scale.

    Raises:
        ValueError: If the dataset has no ``sum_gradient_norm`` over ``path_length``.
    """
    require(dataset, "sum_gradient_norm", "path_length")
    ax = axes_or_new(ax)
    norm = mean_over_draws(dataset["sum_gradient_norm"], "path_length")
    ax.plot(norm["path_length"].values, _positive(norm.values), "-o", color=BLUE, markersize=4)
    if "full_gradient_norm" in dataset:
        level_line(ax, float(dataset["full_gradient_norm"].mean()), "whole gradient", "-")
    _logarithmic(ax, norm.values)
    title = "Gradient of all paths of one length together"
    return finished(ax, dataset, title, dataset["sum_gradient_norm"], dataset["path_length"])


def effective_paths(dataset: xr.Dataset, ax: Axes | None = None) -> Axes:
    """Draw how much gradient the paths of each length carry, with the effective range shaded: figure 6c of the paper.

    Args:
        dataset: What ``EffectivePath.analyze`` returned.
        ax: Where to draw; None for a new figure.

    Returns:
        The axes: the paper's ``total_gradient`` or, in a dataset without it, the exact ``sum_gradient_share``.

    Raises:
        ValueError: If the dataset has neither over ``path_length``.
    """
    exact = "total_gradient" not in dataset and "sum_gradient_share" in dataset
    name = "sum_gradient_share" if exact else "total_gradient"
    require(dataset, name, "path_length")
    ax = axes_or_new(ax)
    total = dataset[name]
    ax.bar(total["path_length"].values, total.values, color=BLUE, width=0.8)
    shade_effective(ax, dataset)
    return finished(ax, dataset, "Gradient from paths of each length", total, dataset["path_length"])


def layer_gradient(dataset: xr.Dataset, ax: Axes | None = None) -> Axes:
    """Draw the gradient that arrives at each block by paths of each length, as a heat map.

    Args:
        dataset: What ``PathGradient.analyze(method="exact")`` returned.
        ax: Where to draw; None for a new figure.

    Returns:
        The axes. Colours are logarithmic over at most 12 decades; where no path has that length there is no colour.

    Raises:
        ValueError: If the dataset has no ``layer_gradient_norm`` over ``layer`` and ``path_length``.
    """
    from matplotlib.colors import LogNorm

    require(dataset, "layer_gradient_norm", "layer", "path_length")
    ax = axes_or_new(ax)
    array = dataset["layer_gradient_norm"]
    norm = mean_over_draws(array, "layer", "path_length").transpose("layer", "path_length")
    positive = norm.values[norm.values > 0]
    high, lowest = (positive.max(), positive.min()) if positive.size else (1.0, 1.0)
    low = max(lowest, high * 10.0**-_DECADES)
    image = ax.pcolormesh(
        norm["path_length"].values,
        np.arange(norm.sizes["layer"]),
        np.ma.masked_invalid(_positive(norm.values)),
        norm=LogNorm(min(low, high / 10), high),
        cmap=COLOURS,
        shading="nearest",
    )
    figure = ax.get_figure()
    assert figure is not None
    figure.colorbar(
        image, ax=ax, label=wrapped(capital(axis_label(array))), extend="min" if lowest < low else "neither"
    )
    ax.set_yticks(*layer_ticks(dataset), fontsize="x-small")
    ax.invert_yaxis()
    finished(ax, dataset, "Gradient at each block by path length", dataset["layer"], dataset["path_length"])
    ax.grid(False)
    return ax


def block_statistic(dataset: xr.Dataset, name: str = "branch_to_skip_ratio", ax: Axes | None = None) -> Axes:
    """Draw one number per block.

    Args:
        dataset: A dataset with block statistics.
        name: Which variable over ``layer``.
        ax: Where to draw; None for a new figure.

    Returns:
        The axes.

    Raises:
        ValueError: If the dataset has no such variable over ``layer``.
    """
    require(dataset, name, "layer")
    ax = axes_or_new(ax)
    values, interval = mean_over_draws(dataset[name], "layer"), None
    if has(dataset, f"{name}_standard_error", "layer"):
        half = _STANDARD_ERRORS * dataset[f"{name}_standard_error"].values
        interval = values.values - half, values.values + half
    if (values < 0).any():
        ax.axhline(0, color=GREY, linewidth=1)
    points_by_layer(ax, dataset, values, interval)
    return finished(ax, dataset, capital(name.replace("_", " ")), dataset[name], "block")


Draw = Callable[..., "Axes"]

_FIGURES: dict[str, tuple[Draw, tuple[str, ...]]] = {
    "error_by_block": (error_by_block, ("error", "layer")),
    "error_by_number_deleted": (error_by_number_deleted, ("error", "n_deleted")),
    "error_by_kendall_tau": (error_by_kendall_tau, ("kendall_tau",)),
    "error_by_lesion": (error_by_lesion, ("error", "lesion")),
    "remaining_paths": (remaining_paths, ("remaining_fraction", "n_deleted", "path_length")),
    "effective_paths": (effective_paths, ("path_fraction", "path_length")),
    "path_lengths": (path_lengths, ("path_fraction", "path_length")),
    # by what EffectivePath leaves out of its result: the figure belongs to what PathGradient returned
    "mean_gradient_by_length": (mean_gradient_by_length, ("gradient_norm", "path_length")),
    "sum_gradient_by_length": (sum_gradient_by_length, ("layer_gradient_norm", "layer", "path_length")),
    "training_curves": (training_curves, ("train_loss", "epoch")),
    "layer_gradient": (layer_gradient, ("layer_gradient_norm", "layer", "path_length")),
}


def available(dataset: xr.Dataset) -> dict[str, Draw]:
    """Find the figures that a dataset has the variables for.

    Args:
        dataset: A result.

    Returns:
        The drawing functions by the figures' names, the main figure first; empty if there is none.
    """
    found = {name: draw for name, (draw, needs) in _FIGURES.items() if has(dataset, *needs)}
    if found:
        return found
    by_layer = [str(name) for name, array in dataset.data_vars.items() if array.dims == ("layer",)]
    by_layer = [name for name in by_layer if dataset[name].dtype.kind in "iuf"]
    return {name: partial(block_statistic, name=name) for name in by_layer if not name.endswith("_standard_error")}


def figures(result: xr.Dataset | xr.DataTree) -> dict[str, Figure]:
    """Draw everything there is to draw.

    Args:
        result: What an analyzer or :func:`resnet_lesion.study` returned.

    Returns:
        Figures by name: the group's path, if any, and the figure's own name, joined by hyphens.

    Raises:
        ValueError: If there is nothing to draw.
        ModuleNotFoundError: If matplotlib is not installed.
    """
    drawn: dict[str, Figure] = {}
    for group, dataset in groups(result):
        for name, draw in available(dataset).items():
            figure = new_figure()
            draw(dataset, ax=figure.subplots())
            drawn["-".join([*group.split("/"), name] if group else [name])] = figure
    alone = {
        group.rpartition("/")[0]: dataset
        for group, dataset in groups(result)
        if group.endswith("/deletion") and has(dataset, "error", "layer")
    }
    if 1 < len(alone) <= len(LINES):
        figure = new_figure()
        compare_deletions(alone, ax=figure.subplots())
        drawn["deletion-compared"] = figure
    if not drawn:
        seen = sorted({str(name) for _, dataset in groups(result) for name in dataset.data_vars})
        raise ValueError(f"expected a result of this package, got one with nothing to draw: its variables are {seen}.")
    return drawn


def save_figures(result: xr.Dataset | xr.DataTree, directory: str | Path) -> list[Path]:
    """Draw everything there is to draw into PNG files.

    Args:
        result: What an analyzer or :func:`resnet_lesion.study` returned.
        directory: Where to; made if it does not exist.

    Returns:
        The files.

    Raises:
        ValueError: If there is nothing to draw.
        ModuleNotFoundError: If matplotlib is not installed.
    """
    directory, paths = Path(directory), list[Path]()
    drawn = figures(result)
    directory.mkdir(parents=True, exist_ok=True)
    for name, figure in drawn.items():
        paths.append(directory / f"{name}.png")
        figure.savefig(paths[-1], dpi=150)
    return paths


def _central(fraction: NDArray[np.float64]) -> tuple[int, int]:
    """Return the ends of the narrowest range around the most frequent length that holds 95 % of the paths."""
    low = high = int(fraction.argmax())
    while fraction[low : high + 1].sum() < 0.95 and (low > 0 or high < len(fraction) - 1):
        low, high = max(low - 1, 0), min(high + 1, len(fraction) - 1)
    return low, high


def _positive(values: NDArray[Any]) -> NDArray[np.float64]:
    return np.where(values > 0, values, np.nan)


def _logarithmic(ax: Axes, values: NDArray[Any]) -> None:
    if (values > 0).any():
        ax.set_yscale("log")


def _flat(array: xr.DataArray, first: str) -> NDArray[Any]:
    return array.transpose(first, ...).values.ravel()
