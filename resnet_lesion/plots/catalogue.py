"""Which figures a result has, by its kind, and all of them drawn at once.

Example:
    >>> import resnet_lesion as rl, timm, torch
    >>> model = timm.create_model("resnet18", num_classes=10, zero_init_last=False)
    >>> data = torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 3])
    >>> tree = rl.study(model, data, n_deleted=[1, 4], n_swaps=[1], n_draws=2, n_paths=2, show_progress=False)
    >>> from matplotlib.figure import Figure
    >>> rl.plots.error_by_number_deleted(tree["random_deletion"].to_dataset(), Figure().subplots()).get_xlabel()
    'Number of deleted blocks'
    >>> sorted(rl.plots.figures(tree))[-2:]
    ['reorder-error_by_kendall_tau', 'sampled_path_gradient-mean_gradient_by_length']
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import xarray as xr

from resnet_lesion.plots import lesions, paths
from resnet_lesion.plots.drawing import LINES, new_figure
from resnet_lesion.results.kinds import kinds_of
from resnet_lesion.results.quantities import groups

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


Draw = Callable[..., "Axes"]


FIGURES: dict[str, tuple[Draw, ...]] = {
    "deletion": (lesions.error_by_block,),
    "random_deletion": (lesions.error_by_number_deleted,),
    "remaining_paths": (paths.remaining_paths,),
    "reorder": (lesions.error_by_kendall_tau,),
    "evaluation": (lesions.error_by_lesion,),
    "effective_path": (paths.effective_paths,),
    "path_lengths": (paths.path_lengths,),
    "sampled_path_gradient": (paths.mean_gradient_by_length,),
    "path_gradient": (paths.sum_gradient_by_length, paths.layer_gradient),
    "training": (lesions.training_curves,),
}
"""The figures of each kind of result, the main one first; a result of another kind has a figure of each variable over
``layer``, as block statistics do."""


def available(dataset: xr.Dataset) -> dict[str, Draw]:
    """Find the figures that a dataset has the variables for.

    Args:
        dataset: A result.

    Returns:
        The drawing functions by the figures' names, the main figure first; empty if there is none.

    Example:
        >>> import resnet_lesion as rl, timm, torch
        >>> model = timm.create_model("resnet18", num_classes=4, zero_init_last=False)
        >>> data, quiet = (torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 3])), {"show_progress": False}
        >>> result = rl.Deletion(model).analyze(data, **quiet)
        >>> list(rl.plots.available(result))
        ['error_by_block']
    """
    found = {draw.__name__: draw for kind in kinds_of(dataset) for draw in FIGURES.get(kind, ())}
    if found:
        return found
    by_layer = [str(name) for name, array in dataset.data_vars.items() if array.dims == ("layer",)]
    by_layer = [name for name in by_layer if dataset[name].dtype.kind in "iuf"]
    names = [name for name in by_layer if not name.endswith("_standard_error")]
    return {name: partial(lesions.block_statistic, name=name) for name in names}


def figures(result: xr.Dataset | xr.DataTree) -> dict[str, Figure]:
    """Draw everything there is to draw.

    Args:
        result: What an analyzer or :func:`resnet_lesion.study` returned.

    Returns:
        Figures by name: the group's path, if any, and the figure's own name, joined by hyphens.

    Raises:
        ValueError: If there is nothing to draw.
        ModuleNotFoundError: If matplotlib is not installed.

    Example:
        >>> import resnet_lesion as rl, timm, torch
        >>> model = timm.create_model("resnet18", num_classes=4, zero_init_last=False)
        >>> data, quiet = (torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 3])), {"show_progress": False}
        >>> result = rl.Deletion(model).analyze(data, n_deleted=[1, 4], n_draws=2, **quiet)
        >>> sorted(rl.plots.figures(result))
        ['error_by_number_deleted', 'remaining_paths']
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
        if group.endswith("/deletion") and "deletion" in kinds_of(dataset)
    }
    if 1 < len(alone) <= len(LINES):
        figure = new_figure()
        lesions.compare_deletions(alone, ax=figure.subplots())
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

    Example:
        >>> import resnet_lesion as rl, timm, torch
        >>> model = timm.create_model("resnet18", num_classes=4, zero_init_last=False)
        >>> data, quiet = (torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 3])), {"show_progress": False}
        >>> result = rl.Deletion(model).analyze(data, **quiet)
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     [path.name for path in rl.plots.save_figures(result, folder)]
        ['error_by_block.png']
    """
    directory, paths = Path(directory), list[Path]()
    drawn = figures(result)
    directory.mkdir(parents=True, exist_ok=True)
    for name, figure in drawn.items():
        paths.append(directory / f"{name}.png")
        figure.savefig(paths[-1], dpi=150)
    return paths
