"""The figures of paths: how many there are of each length, and how much gradient they carry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from resnet_lesion.plots.drawing import (
    BLUE,
    COLOURS,
    GREY,
    STANDARD_ERRORS,
    axes_or_new,
    axis_label,
    capital,
    finished,
    layer_ticks,
    level_line,
    require,
    shade_effective,
    wrapped,
)
from resnet_lesion.results.quantities import has, mean_over_draws, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes


_DECADES = 12


def path_lengths(dataset: xr.Dataset, ax: Axes | None = None) -> Axes:
    """Draw how long the paths through the network are: figure 6a of the paper.

    Args:
        dataset: What ``EffectivePath.analyze`` returned, or any dataset with ``path_fraction`` over ``path_length``.
        ax: Where to draw; None for a new figure.

    Returns:
        The axes, with the central 95 % of the paths coloured.

    Raises:
        ValueError: If the dataset has no ``path_fraction`` over ``path_length``, as ``EffectivePath.analyze`` returns
            it.

    Example:
        >>> import resnet_lesion as rl, timm, torch
        >>> model = timm.create_model("resnet18", num_classes=4, zero_init_last=False)
        >>> data, quiet = (torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 3])), {"show_progress": False}
        >>> result = rl.EffectivePath(model).analyze(data, n_draws=2, **quiet)
        >>> from matplotlib.figure import Figure
        >>> rl.plots.path_lengths(result, ax=Figure().subplots()).get_title(loc="left")
        'Lengths of all paths: resnet18'
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
    """Draw what fraction of the paths of each length is left after deleting blocks: figure 7 of the paper.

    Args:
        dataset: What ``Deletion.analyze`` returned with ``n_deleted``.
        ax: Where to draw; None for a new figure.

    Returns:
        The axes, with a line for each of at most six numbers of deleted blocks.

    Raises:
        ValueError: If the dataset has no ``remaining_fraction`` over ``path_length``, as ``Deletion.analyze`` returns
            it with ``n_deleted``.

    Example:
        >>> import resnet_lesion as rl, timm, torch
        >>> model = timm.create_model("resnet18", num_classes=4, zero_init_last=False)
        >>> data, quiet = (torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 3])), {"show_progress": False}
        >>> result = rl.Deletion(model).analyze(data, n_deleted=[1, 4], n_draws=2, **quiet)
        >>> from matplotlib.figure import Figure
        >>> rl.plots.remaining_paths(result, ax=Figure().subplots()).get_title(loc="left")
        'Paths that deletion leaves: resnet18'
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
        ValueError: If the dataset has no ``mean_gradient_norm`` over ``path_length``, as
            ``PathGradient.analyze(method="sample")`` returns it.

    Example:
        >>> import resnet_lesion as rl, timm, torch
        >>> model = timm.create_model("resnet18", num_classes=4, zero_init_last=False)
        >>> data, quiet = (torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 3])), {"show_progress": False}
        >>> result = rl.PathGradient(model).analyze(data, method="sample", n_draws=2, **quiet)
        >>> from matplotlib.figure import Figure
        >>> rl.plots.mean_gradient_by_length(result, ax=Figure().subplots()).get_title(loc="left")
        'Gradient along single paths: resnet18'
    """
    require(dataset, "mean_gradient_norm", "path_length")
    ax = axes_or_new(ax)
    mean = dataset["mean_gradient_norm"]
    x = mean["path_length"].values
    y, bars, label = _positive(mean.values), None, "mean over paths and images"
    if has(dataset, "gradient_norm_standard_error", "path_length"):
        factor = np.exp(STANDARD_ERRORS * dataset["gradient_norm_standard_error"].values / y)
        bars = np.stack([y - y / factor, y * factor - y])
        label += " with 95 % interval"
    ax.errorbar(x, y, bars, fmt="-o", color=BLUE, markersize=4, linewidth=1, label=label)
    _logarithmic(ax, x, mean.values)
    return finished(ax, dataset, "Gradient along single paths", mean, dataset["path_length"])


def sum_gradient_by_length(dataset: xr.Dataset, ax: Axes | None = None) -> Axes:
    """Draw the norm of the gradient that all paths of one length carry together.

    Args:
        dataset: What ``PathGradient.analyze(method="exact")`` returned.
        ax: Where to draw; None for a new figure.

    Returns:
        The axes, with a logarithmic scale and the norm of the whole gradient.

    Raises:
        ValueError: If the dataset has no ``sum_gradient_norm`` over ``path_length``, as
            ``PathGradient.analyze(method="exact")`` returns it.

    Example:
        >>> import resnet_lesion as rl, timm, torch
        >>> model = timm.create_model("resnet18", num_classes=4, zero_init_last=False)
        >>> data, quiet = (torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 3])), {"show_progress": False}
        >>> result = rl.PathGradient(model).analyze(data, method="exact", **quiet)
        >>> from matplotlib.figure import Figure
        >>> rl.plots.sum_gradient_by_length(result, ax=Figure().subplots()).get_title(loc="left")
        'Gradient of all paths of one length together: resnet18'
    """
    require(dataset, "sum_gradient_norm", "path_length")
    ax = axes_or_new(ax)
    norm = mean_over_draws(dataset["sum_gradient_norm"], "path_length")
    x = norm["path_length"].values
    ax.plot(x, _positive(norm.values), "-o", color=BLUE, markersize=4)
    if "full_gradient_norm" in dataset:
        level_line(ax, float(dataset["full_gradient_norm"].mean()), "whole gradient", "-")
    _logarithmic(ax, x, norm.values)
    title = "Gradient of all paths of one length together"
    return finished(ax, dataset, title, dataset["sum_gradient_norm"], dataset["path_length"])


def effective_paths(dataset: xr.Dataset, ax: Axes | None = None) -> Axes:
    """Draw how much gradient the paths of each length carry, with the effective range shaded: figure 6c of the paper.

    Args:
        dataset: What ``EffectivePath.analyze`` returned.
        ax: Where to draw; None for a new figure.

    Returns:
        The axes, with the paper's ``total_gradient`` or, in a dataset without it, the exact ``sum_gradient_share``.

    Raises:
        ValueError: If the dataset has neither over ``path_length``, as ``EffectivePath.analyze`` returns them.

    Example:
        >>> import resnet_lesion as rl, timm, torch
        >>> model = timm.create_model("resnet18", num_classes=4, zero_init_last=False)
        >>> data, quiet = (torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 3])), {"show_progress": False}
        >>> result = rl.EffectivePath(model).analyze(data, n_draws=2, **quiet)
        >>> from matplotlib.figure import Figure
        >>> rl.plots.effective_paths(result, ax=Figure().subplots()).get_title(loc="left")
        'Gradient from paths of each length: resnet18'
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
        ValueError: If the dataset has no ``layer_gradient_norm`` over ``layer`` and ``path_length``, as
            ``PathGradient.analyze(method="exact")`` returns it.

    Example:
        >>> import resnet_lesion as rl, timm, torch
        >>> model = timm.create_model("resnet18", num_classes=4, zero_init_last=False)
        >>> data, quiet = (torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 3])), {"show_progress": False}
        >>> result = rl.PathGradient(model).analyze(data, method="exact", **quiet)
        >>> from matplotlib.figure import Figure
        >>> rl.plots.layer_gradient(result, ax=Figure().subplots()).get_title(loc="left")
        'Gradient at each block by path length: resnet18'
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


def _central(fraction: NDArray[np.float64]) -> tuple[int, int]:
    """Return the ends of the narrowest range around the most frequent length that holds 95 % of the paths."""
    low = high = int(fraction.argmax())
    while fraction[low : high + 1].sum() < 0.95 and (low > 0 or high < len(fraction) - 1):
        low, high = max(low - 1, 0), min(high + 1, len(fraction) - 1)
    return low, high


def _positive(values: NDArray[Any]) -> NDArray[np.float64]:
    return np.where(values > 0, values, np.nan)


def _logarithmic(ax: Axes, x: NDArray[Any], values: NDArray[Any]) -> None:
    """Scale the vertical axis, over one decade at least, so that a power of ten is on it; show all lengths."""
    margin = max(0.5, 0.03 * (x[-1] - x[0]))
    ax.set_xlim(x[0] - margin, x[-1] + margin)  # lengths without a gradient too
    if not (values > 0).any():
        return
    ax.set_yscale("log")
    low, high = ax.get_ylim()
    if high < 10 * low:
        middle = (low * high) ** 0.5
        ax.set_ylim(middle / 10**0.5, middle * 10**0.5)
