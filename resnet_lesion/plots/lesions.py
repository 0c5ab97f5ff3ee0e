"""The figures of blocks: the error under lesions, a number for each block, and how the training went."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from resnet_lesion.plots.drawing import (
    BLUE,
    GREY,
    LINES,
    STANDARD_ERRORS,
    axes_or_new,
    capital,
    error_interval,
    finished,
    integer_ticks,
    points,
    points_by_layer,
    reference_levels,
    require,
    ticks_at,
)
from resnet_lesion.results.quantities import has, mean_over_draws

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def error_by_block(dataset: xr.Dataset, ax: Axes | None = None) -> Axes:
    """Draw the error with each block deleted alone: figures 3 and 4 of the paper.

    Args:
        dataset: What ``Deletion.analyze`` returned without ``n_deleted``.
        ax: Where to draw; None for a new figure.

    Returns:
        The axes, with a 95 % interval for each block, and the errors of the whole network and of guessing.

    Raises:
        ValueError: If the dataset has no ``error`` over ``layer``, as ``Deletion.analyze`` returns it.

    Example:
        >>> import resnet_lesion as rl, timm, torch
        >>> model = timm.create_model("resnet18", num_classes=4, zero_init_last=False)
        >>> data, quiet = (torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 3])), {"show_progress": False}
        >>> result = rl.Deletion(model).analyze(data, **quiet)
        >>> from matplotlib.figure import Figure
        >>> rl.plots.error_by_block(result, ax=Figure().subplots()).get_title(loc="left")
        'Error with each block deleted alone: resnet18'
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

    Example:
        >>> import resnet_lesion as rl, timm, torch
        >>> model = timm.create_model("resnet18", num_classes=4, zero_init_last=False)
        >>> data, quiet = (torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 3])), {"show_progress": False}
        >>> result = rl.Deletion(model).analyze(data, **quiet)
        >>> from matplotlib.figure import Figure
        >>> ax = rl.plots.compare_deletions({"mine": result, "yours": result}, ax=Figure().subplots())
        >>> ax.get_legend_handles_labels()[1]
        ['mine (8 blocks)', 'yours (8 blocks)']
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


def error_by_lesion(dataset: xr.Dataset, ax: Axes | None = None) -> Axes:
    """Draw the error under each of the lesions that were evaluated.

    Args:
        dataset: What :func:`resnet_lesion.evaluate` returned.
        ax: Where to draw; None for a new figure.

    Returns:
        The axes, with a 95 % interval for each lesion.

    Raises:
        ValueError: If the dataset has no ``error`` over ``lesion``, as :func:`resnet_lesion.evaluate` returns it.

    Example:
        >>> import resnet_lesion as rl, timm, torch
        >>> model = timm.create_model("resnet18", num_classes=4, zero_init_last=False)
        >>> data, quiet = (torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 3])), {"show_progress": False}
        >>> result = rl.evaluate(model, data, [[0, 1, 2, 3, 4, 5, 6, -1]], **quiet)
        >>> from matplotlib.figure import Figure
        >>> rl.plots.error_by_lesion(result, ax=Figure().subplots()).get_title(loc="left")
        'Error under each lesion: resnet18'
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
        The axes, with the mean over the draws, each of them, and their 10th to 90th percentile.

    Raises:
        ValueError: If the dataset has no ``error`` over ``n_deleted``, as ``Deletion.analyze`` returns it with
            ``n_deleted``.

    Example:
        >>> import resnet_lesion as rl, timm, torch
        >>> model = timm.create_model("resnet18", num_classes=4, zero_init_last=False)
        >>> data, quiet = (torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 3])), {"show_progress": False}
        >>> result = rl.Deletion(model).analyze(data, n_deleted=[1, 4], n_draws=2, **quiet)
        >>> from matplotlib.figure import Figure
        >>> rl.plots.error_by_number_deleted(result, ax=Figure().subplots()).get_title(loc="left")
        'Error with many blocks deleted: resnet18'
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
    ticks_at(ax, x)
    return finished(ax, dataset, "Error with many blocks deleted", error, dataset["n_deleted"])


def error_by_kendall_tau(dataset: xr.Dataset, ax: Axes | None = None) -> Axes:
    """Draw the error against how far the blocks are out of order: figure 5b of the paper.

    Args:
        dataset: What ``Reorder.analyze`` returned.
        ax: Where to draw; None for a new figure.

    Returns:
        The axes, with a point for each draw and the mean for each number of swaps. Kendall's tau falls from left to
        right, so that the damage grows.

    Raises:
        ValueError: If the dataset has no ``kendall_tau`` and ``error``, as ``Reorder.analyze`` returns them.

    Example:
        >>> import resnet_lesion as rl, timm, torch
        >>> model = timm.create_model("resnet18", num_classes=4, zero_init_last=False)
        >>> data, quiet = (torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 3])), {"show_progress": False}
        >>> result = rl.Reorder(model).analyze(data, n_swaps=[1, 2], n_draws=2, **quiet)
        >>> from matplotlib.figure import Figure
        >>> rl.plots.error_by_kendall_tau(result, ax=Figure().subplots()).get_title(loc="left")
        'Error with blocks swapped: resnet18'
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


def block_statistic(dataset: xr.Dataset, name: str = "branch_to_skip_ratio", ax: Axes | None = None) -> Axes:
    """Draw one number per block.

    Args:
        dataset: A dataset with block statistics.
        name: Which variable over ``layer``.
        ax: Where to draw; None for a new figure.

    Returns:
        The axes, with a 95 % interval if the dataset has the variable's standard error.

    Raises:
        ValueError: If the dataset has no such variable over ``layer``, as ``BlockStatistics.analyze`` returns them.

    Example:
        >>> import resnet_lesion as rl, timm, torch
        >>> model = timm.create_model("resnet18", num_classes=4, zero_init_last=False)
        >>> data, quiet = (torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 3])), {"show_progress": False}
        >>> result = rl.BlockStatistics(model).analyze(data, **quiet)
        >>> from matplotlib.figure import Figure
        >>> rl.plots.block_statistic(result, ax=Figure().subplots()).get_title(loc="left")
        'Branch to skip ratio: resnet18'
    """
    require(dataset, name, "layer")
    ax = axes_or_new(ax)
    values, interval = mean_over_draws(dataset[name], "layer"), None
    if has(dataset, f"{name}_standard_error", "layer"):
        half = STANDARD_ERRORS * dataset[f"{name}_standard_error"].values
        interval = values.values - half, values.values + half
    if (values < 0).any():
        ax.axhline(0, color=GREY, linewidth=1)
    points_by_layer(ax, dataset, values, interval)
    return finished(ax, dataset, capital(name.replace("_", " ")), dataset[name], "block")


def training_curves(dataset: xr.Dataset, ax: Axes | None = None) -> Axes:
    """Draw how the training went.

    Args:
        dataset: What :func:`resnet_lesion.train` returned.
        ax: Where to draw; None for a new figure.

    Returns:
        The axes, with the validation error against the epoch if there was validation data, else the loss.

    Raises:
        ValueError: If the dataset has no ``train_loss`` over ``epoch``, as :func:`resnet_lesion.train` returns it.

    Example:
        >>> import resnet_lesion as rl, timm, torch
        >>> model = timm.create_model("resnet18", num_classes=4, zero_init_last=False)
        >>> data, quiet = (torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 3])), {"show_progress": False}
        >>> result = rl.train(model, [data], rl.Recipe(epochs=2), **quiet)
        >>> from matplotlib.figure import Figure
        >>> rl.plots.training_curves(result, ax=Figure().subplots()).get_title(loc="left")
        'Training: resnet18'
    """
    require(dataset, "train_loss", "epoch")
    ax = axes_or_new(ax)
    curve = dataset["validation_error" if "validation_error" in dataset else "train_loss"]
    ax.plot(curve["epoch"].values, curve.values, "-o", color=BLUE, markersize=4)
    ax.set_ylim(bottom=0)
    integer_ticks(ax)
    return finished(ax, dataset, "Training", curve, dataset["epoch"])


def _flat(array: xr.DataArray, first: str) -> NDArray[Any]:
    return array.transpose(first, ...).values.ravel()
