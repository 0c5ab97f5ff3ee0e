"""``dataset.lesion``: the figures and the scalars of a result, on the xarray Dataset itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import xarray as xr

from resnet_lesion import plots
from resnet_lesion.checks import as_positive
from resnet_lesion.results.gradients import effective_range
from resnet_lesion.results.quantities import area, decay_factor, has, mean_over_draws

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class LesionAccessor:
    """Figures and scalars of a result of this package, as ``dataset.lesion``.

    Args:
        dataset: What an analyzer returned, or one group of what :func:`resnet_lesion.study` returned.

    Example:
        >>> import resnet_lesion as rl, timm, torch
        >>> model = timm.create_model("resnet18", num_classes=4, zero_init_last=False)
        >>> data, quiet = (torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 3])), {"show_progress": False}
        >>> deletion, gradient, paths = rl.Deletion(model), rl.PathGradient(model), rl.EffectivePath(model)
        >>> alone = deletion.analyze(data, **quiet)
        >>> alone.lesion.plot().get_xlabel(), alone.lesion.most_important(3).sizes["layer"]
        ('Deleted block', 3)
        >>> many = deletion.analyze(data, n_deleted=[1, 4], n_draws=2, **quiet)
        >>> 0 <= many.lesion.auc() <= 1
        True
        >>> sampled = gradient.analyze(data, method="sample", n_draws=2, **quiet)
        >>> sampled.lesion.decay_factor() > 0
        True
        >>> effective = paths.analyze(sampled)
        >>> low, high = effective.lesion.effective_range()
        >>> low <= high
        True
    """

    def __init__(self, dataset: xr.Dataset) -> None:
        self._dataset = dataset

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the dataset's main figure.

        Args:
            ax: Where to draw; None for a new figure.

        Returns:
            The axes.

        Raises:
            ValueError: If the dataset is not a result that has a figure.

        Example:
            >>> import resnet_lesion as rl, timm, torch
            >>> model = timm.create_model("resnet18", num_classes=4, zero_init_last=False)
            >>> data, quiet = (torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 3])), {"show_progress": False}
            >>> result = rl.Deletion(model).analyze(data, **quiet)
            >>> result.lesion.plot().get_xlabel()
            'Deleted block'
        """
        available = plots.available(self._dataset)
        if not available:
            seen = list(map(str, self._dataset.data_vars))
            raise ValueError(f"expected a result of an analyzer, got a dataset with nothing to draw among {seen}.")
        return next(iter(available.values()))(self._dataset, ax=ax)

    def plot_error_by_block(self, ax: Axes | None = None) -> Axes:
        """Draw the error with each block deleted alone: figures 3 and 4 of the paper.

        Args:
            ax: Where to draw; None for a new figure.

        Returns:
            The axes, with a 95 % interval for each block, and the errors of the whole network and of guessing.

        Raises:
            ValueError: If this is not what ``Deletion.analyze`` returned without ``n_deleted``.

        Example:
            >>> import resnet_lesion as rl, timm, torch
            >>> model = timm.create_model("resnet18", num_classes=4, zero_init_last=False)
            >>> data, quiet = (torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 3])), {"show_progress": False}
            >>> result = rl.Deletion(model).analyze(data, **quiet)
            >>> result.lesion.plot_error_by_block().get_title(loc="left")
            'Error with each block deleted alone: resnet18'
        """
        return plots.error_by_block(self._dataset, ax)

    def plot_error_by_number_deleted(self, ax: Axes | None = None) -> Axes:
        """Draw the error against how many blocks are deleted at random: figure 5a of the paper.

        Args:
            ax: Where to draw; None for a new figure.

        Returns:
            The axes, with the mean over the draws, each of them, and their 10th to 90th percentile.

        Raises:
            ValueError: If this is not what ``Deletion.analyze`` returned with ``n_deleted``.

        Example:
            >>> import resnet_lesion as rl, timm, torch
            >>> model = timm.create_model("resnet18", num_classes=4, zero_init_last=False)
            >>> data, quiet = (torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 3])), {"show_progress": False}
            >>> result = rl.Deletion(model).analyze(data, n_deleted=[1, 4], n_draws=2, **quiet)
            >>> result.lesion.plot_error_by_number_deleted().get_title(loc="left")
            'Error with many blocks deleted: resnet18'
        """
        return plots.error_by_number_deleted(self._dataset, ax)

    def plot_error_by_kendall_tau(self, ax: Axes | None = None) -> Axes:
        """Draw the error against the order's Kendall's tau: figure 5b of the paper.

        Args:
            ax: Where to draw; None for a new figure.

        Returns:
            The axes, with a point for each draw and the mean for each number of swaps; the damage grows to the right.

        Raises:
            ValueError: If this is not what ``Reorder.analyze`` returned.

        Example:
            >>> import resnet_lesion as rl, timm, torch
            >>> model = timm.create_model("resnet18", num_classes=4, zero_init_last=False)
            >>> data, quiet = (torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 3])), {"show_progress": False}
            >>> result = rl.Reorder(model).analyze(data, n_swaps=[1, 2], n_draws=2, **quiet)
            >>> result.lesion.plot_error_by_kendall_tau().get_title(loc="left")
            'Error with blocks swapped: resnet18'
        """
        return plots.error_by_kendall_tau(self._dataset, ax)

    def plot_error_by_lesion(self, ax: Axes | None = None) -> Axes:
        """Draw the error under each lesion that was asked for.

        Args:
            ax: Where to draw; None for a new figure.

        Returns:
            The axes, with a 95 % interval for each lesion.

        Raises:
            ValueError: If this is not what :func:`resnet_lesion.evaluate` returned.

        Example:
            >>> import resnet_lesion as rl, timm, torch
            >>> model = timm.create_model("resnet18", num_classes=4, zero_init_last=False)
            >>> data, quiet = (torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 3])), {"show_progress": False}
            >>> result = rl.evaluate(model, data, [[0, 1, 2, 3, 4, 5, 6, -1]], **quiet)
            >>> result.lesion.plot_error_by_lesion().get_title(loc="left")
            'Error under each lesion: resnet18'
        """
        return plots.error_by_lesion(self._dataset, ax)

    def plot_remaining_paths(self, ax: Axes | None = None) -> Axes:
        """Draw which share of the paths of each length deletion leaves: figure 7 of the paper.

        Args:
            ax: Where to draw; None for a new figure.

        Returns:
            The axes, with a line for each of at most six numbers of deleted blocks.

        Raises:
            ValueError: If this is not what ``Deletion.analyze`` returned with ``n_deleted``.

        Example:
            >>> import resnet_lesion as rl, timm, torch
            >>> model = timm.create_model("resnet18", num_classes=4, zero_init_last=False)
            >>> data, quiet = (torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 3])), {"show_progress": False}
            >>> result = rl.Deletion(model).analyze(data, n_deleted=[1, 4], n_draws=2, **quiet)
            >>> result.lesion.plot_remaining_paths().get_title(loc="left")
            'Paths that deletion leaves: resnet18'
        """
        return plots.remaining_paths(self._dataset, ax)

    def plot_path_lengths(self, ax: Axes | None = None) -> Axes:
        """Draw the share of all paths that each length has: figure 6a of the paper.

        Args:
            ax: Where to draw; None for a new figure.

        Returns:
            The axes, with the central 95 % of the paths coloured.

        Raises:
            ValueError: If there is no ``path_fraction`` over ``path_length``, as ``EffectivePath.analyze`` returns it.

        Example:
            >>> import resnet_lesion as rl, timm, torch
            >>> model = timm.create_model("resnet18", num_classes=4, zero_init_last=False)
            >>> data, quiet = (torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 3])), {"show_progress": False}
            >>> result = rl.EffectivePath(model).analyze(data, n_draws=2, **quiet)
            >>> result.lesion.plot_path_lengths().get_title(loc="left")
            'Lengths of all paths: resnet18'
        """
        return plots.path_lengths(self._dataset, ax)

    def plot_mean_gradient_by_length(self, ax: Axes | None = None) -> Axes:
        """Draw the mean gradient norm of single paths against their length: figure 6b of the paper.

        Args:
            ax: Where to draw; None for a new figure.

        Returns:
            The axes, with a logarithmic scale and a 95 % interval.

        Raises:
            ValueError: If there is no ``mean_gradient_norm``, as ``PathGradient.analyze(method="sample")`` returns it.

        Example:
            >>> import resnet_lesion as rl, timm, torch
            >>> model = timm.create_model("resnet18", num_classes=4, zero_init_last=False)
            >>> data, quiet = (torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 3])), {"show_progress": False}
            >>> result = rl.PathGradient(model).analyze(data, method="sample", n_draws=2, **quiet)
            >>> result.lesion.plot_mean_gradient_by_length().get_title(loc="left")
            'Gradient along single paths: resnet18'
        """
        return plots.mean_gradient_by_length(self._dataset, ax)

    def plot_sum_gradient_by_length(self, ax: Axes | None = None) -> Axes:
        """Draw the norm of the gradient that all paths of one length carry together.

        Args:
            ax: Where to draw; None for a new figure.

        Returns:
            The axes, with a logarithmic scale and the norm of the whole gradient.

        Raises:
            ValueError: If there is no ``sum_gradient_norm``, as ``PathGradient.analyze(method="exact")`` returns it.

        Example:
            >>> import resnet_lesion as rl, timm, torch
            >>> model = timm.create_model("resnet18", num_classes=4, zero_init_last=False)
            >>> data, quiet = (torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 3])), {"show_progress": False}
            >>> result = rl.PathGradient(model).analyze(data, method="exact", **quiet)
            >>> result.lesion.plot_sum_gradient_by_length().get_title(loc="left")
            'Gradient of all paths of one length together: resnet18'
        """
        return plots.sum_gradient_by_length(self._dataset, ax)

    def plot_effective_paths(self, ax: Axes | None = None) -> Axes:
        """Draw how much gradient the paths of each length carry: figure 6c of the paper.

        Args:
            ax: Where to draw; None for a new figure.

        Returns:
            The axes, with the effective range shaded.

        Raises:
            ValueError: If this is not what ``EffectivePath.analyze`` returned.

        Example:
            >>> import resnet_lesion as rl, timm, torch
            >>> model = timm.create_model("resnet18", num_classes=4, zero_init_last=False)
            >>> data, quiet = (torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 3])), {"show_progress": False}
            >>> result = rl.EffectivePath(model).analyze(data, n_draws=2, **quiet)
            >>> result.lesion.plot_effective_paths().get_title(loc="left")
            'Gradient from paths of each length: resnet18'
        """
        return plots.effective_paths(self._dataset, ax)

    def plot_layer_gradient(self, ax: Axes | None = None) -> Axes:
        """Draw the gradient at each block's input by path length, as an image.

        Args:
            ax: Where to draw; None for a new figure.

        Returns:
            The axes, with logarithmic colours.

        Raises:
            ValueError: If there is no ``layer_gradient_norm``, as ``PathGradient.analyze(method="exact")`` returns it.

        Example:
            >>> import resnet_lesion as rl, timm, torch
            >>> model = timm.create_model("resnet18", num_classes=4, zero_init_last=False)
            >>> data, quiet = (torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 3])), {"show_progress": False}
            >>> result = rl.PathGradient(model).analyze(data, method="exact", **quiet)
            >>> result.lesion.plot_layer_gradient().get_title(loc="left")
            'Gradient at each block by path length: resnet18'
        """
        return plots.layer_gradient(self._dataset, ax)

    def plot_training_curves(self, ax: Axes | None = None) -> Axes:
        """Draw how the training went.

        Args:
            ax: Where to draw; None for a new figure.

        Returns:
            The axes: the validation error against the epoch if there was validation data, else the loss.

        Raises:
            ValueError: If this is not what :func:`resnet_lesion.train` returned.

        Example:
            >>> import resnet_lesion as rl, timm, torch
            >>> model = timm.create_model("resnet18", num_classes=4, zero_init_last=False)
            >>> data, quiet = (torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 3])), {"show_progress": False}
            >>> result = rl.train(model, [data], rl.Recipe(epochs=2), **quiet)
            >>> result.lesion.plot_training_curves().get_title(loc="left")
            'Training: resnet18'
        """
        return plots.training_curves(self._dataset, ax)

    def plot_block_statistic(self, name: str = "branch_to_skip_ratio", ax: Axes | None = None) -> Axes:
        """Draw one number per block.

        Args:
            name: Which variable over ``layer``.
            ax: Where to draw; None for a new figure.

        Returns:
            The axes, with a 95 % interval if the dataset has the variable's standard error.

        Raises:
            ValueError: If there is no such variable over ``layer``, as ``BlockStatistics.analyze`` returns them.

        Example:
            >>> import resnet_lesion as rl, timm, torch
            >>> model = timm.create_model("resnet18", num_classes=4, zero_init_last=False)
            >>> data, quiet = (torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 3])), {"show_progress": False}
            >>> result = rl.BlockStatistics(model).analyze(data, **quiet)
            >>> result.lesion.plot_block_statistic().get_title(loc="left")
            'Branch to skip ratio: resnet18'
        """
        return plots.block_statistic(self._dataset, name, ax)

    def auc(self) -> float:
        r"""Return the normalised area under mean error e against ``n_deleted``: the mean error over that range.

        Returns:
            :math:`\frac{1}{b - a} \int_a^b e(d) \, \mathrm{d}d` by the trapezoidal rule, from the fewest deleted blocks
            a to the most b; between 0 and 1.

        Raises:
            ValueError: If the dataset has no ``error`` for at least two values of ``n_deleted``.

        Example:
            >>> import resnet_lesion as rl, timm, torch
            >>> model = timm.create_model("resnet18", num_classes=4, zero_init_last=False)
            >>> data, quiet = (torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 3])), {"show_progress": False}
            >>> result = rl.Deletion(model).analyze(data, n_deleted=[1, 4], n_draws=2, **quiet)
            >>> 0 <= result.lesion.auc() <= 1
            True
        """
        if not has(self._dataset, "error", "n_deleted") or self._dataset.sizes["n_deleted"] < 2:
            raise ValueError(
                "expected 'error' for at least two values of n_deleted, as Deletion.analyze(data, n_deleted=range(1, "
                f"21)) gives it, got {dict(self._dataset.sizes)}."
            )
        return area(mean_over_draws(self._dataset["error"], "n_deleted"))

    def effective_range(self) -> tuple[int, int]:
        """Return the shortest and the longest effective path length.

        Returns:
            The paper's range or, in a dataset made from exact sums alone, that of the sums.

        Raises:
            ValueError: If the dataset does not come from ``EffectivePath.analyze``.

        Example:
            >>> import resnet_lesion as rl, timm, torch
            >>> model = timm.create_model("resnet18", num_classes=4, zero_init_last=False)
            >>> data, quiet = (torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 3])), {"show_progress": False}
            >>> result = rl.EffectivePath(model).analyze(data, n_draws=2, **quiet)
            >>> low, high = result.lesion.effective_range()
            >>> 0 <= low <= high <= 8
            True
        """
        return effective_range(self._dataset)

    def decay_factor(self) -> float:
        r"""Return the factor by which the mean gradient norm of a path changes with each block it passes.

        Returns:
            The :math:`\gamma` of :math:`\mathrm{E} \lVert g_k \rVert \approx c \gamma^k`, fitted by least squares to
            the logarithm of ``mean_gradient_norm`` over all path lengths k where it is positive; below 1 if long paths
            carry less. NaN with fewer than two such lengths.

        Raises:
            ValueError: If the dataset has no ``mean_gradient_norm``.

        Example:
            >>> import resnet_lesion as rl, timm, torch
            >>> model = timm.create_model("resnet18", num_classes=4, zero_init_last=False)
            >>> data, quiet = (torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 3])), {"show_progress": False}
            >>> result = rl.PathGradient(model).analyze(data, method="sample", n_draws=2, **quiet)
            >>> result.lesion.decay_factor() > 0
            True
        """
        return decay_factor(self._required("mean_gradient_norm", 'PathGradient.analyze(data, method="sample")'))

    def most_important(self, n: int = 5) -> xr.DataArray:
        """Return the blocks whose deletion alone costs the most.

        Args:
            n: How many.

        Returns:
            ``error`` (layer) of these blocks, the largest first.

        Raises:
            TypeError: If ``n`` is not an integer.
            ValueError: If it is below 1, or the dataset has no ``error`` over ``layer``.

        Example:
            >>> import resnet_lesion as rl, timm, torch
            >>> model = timm.create_model("resnet18", num_classes=4, zero_init_last=False)
            >>> data, quiet = (torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 3])), {"show_progress": False}
            >>> result = rl.Deletion(model).analyze(data, **quiet)
            >>> result.lesion.most_important(3).sizes["layer"]
            3
        """
        n = as_positive("n", n)
        error = self._required("error", "Deletion.analyze(data)")
        if error.dims != ("layer",):
            raise ValueError(f"expected the error with each block deleted alone, got it over {error.dims}.")
        return error.sortby(-error)[:n]

    def _required(self, name: str, source: str) -> xr.DataArray:
        if name not in self._dataset.data_vars:
            seen = list(map(str, self._dataset.data_vars))
            raise ValueError(f"expected a dataset with {name!r}, as {source} returns it, got {seen}.")
        return self._dataset[name]
