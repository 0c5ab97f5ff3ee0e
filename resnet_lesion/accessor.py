"""``dataset.lesion``: the figures and the scalars of a result, on the xarray Dataset itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import xarray as xr

from resnet_lesion import plots
from resnet_lesion.effective_lengths import effective_range
from resnet_lesion.quantities import area, decay_factor, has, mean_over_draws

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@xr.register_dataset_accessor("lesion")  # type: ignore[no-untyped-call]
class LesionAccessor:
    """Figures and scalars of a result of this package, as ``dataset.lesion``.

    Args:
        dataset: What an analyzer returned, or one group of what :func:`resnet_lesion.study` returned.

    Example:
        >>> import resnet_lesion as rl, timm, torch
        >>> model = timm.create_model("cifar_preactresnet110", pretrained=True)
        >>> data = torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 2, 3])
        >>> deletion, gradient = rl.Deletion(model), rl.PathGradient(model)
        >>> result = deletion.analyze(data, show_progress=False)
        >>> result.lesion.most_important(3).sizes["layer"]
        3
        >>> from matplotlib.figure import Figure
        >>> result.lesion.plot(Figure().subplots()).get_xlabel()
        'Deleted block'
        >>> 0 <= deletion.analyze(data, n_deleted=[1, 20], n_draws=2, show_progress=False).lesion.auc() <= 1
        True
        >>> paths = gradient.analyze(data, method="sample", n_draws=2, show_progress=False)
        >>> paths.lesion.decay_factor() < 1
        True
        >>> low, high = rl.EffectivePath(model).analyze(paths).lesion.effective_range()
        >>> low < high
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
        """
        available = plots.available(self._dataset)
        if not available:
            seen = list(map(str, self._dataset.data_vars))
            raise ValueError(f"expected a result of an analyzer, got a dataset with nothing to draw among {seen}.")
        return next(iter(available.values()))(self._dataset, ax=ax)

    def plot_error_by_block(self, ax: Axes | None = None) -> Axes:
        """Draw the error with each block deleted alone; see :func:`resnet_lesion.plots.error_by_block`."""
        return plots.error_by_block(self._dataset, ax)

    def plot_error_by_number_deleted(self, ax: Axes | None = None) -> Axes:
        """Draw the error against how many blocks are deleted; see :func:`.plots.error_by_number_deleted`."""
        return plots.error_by_number_deleted(self._dataset, ax)

    def plot_error_by_kendall_tau(self, ax: Axes | None = None) -> Axes:
        """Draw the error against the order's Kendall's tau; see :func:`.plots.error_by_kendall_tau`."""
        return plots.error_by_kendall_tau(self._dataset, ax)

    def plot_error_by_lesion(self, ax: Axes | None = None) -> Axes:
        """Draw the error under each lesion of an evaluation; see :func:`.plots.error_by_lesion`."""
        return plots.error_by_lesion(self._dataset, ax)

    def plot_remaining_paths(self, ax: Axes | None = None) -> Axes:
        """Draw the share of paths that deletion leaves; see :func:`.plots.remaining_paths`."""
        return plots.remaining_paths(self._dataset, ax)

    def plot_path_lengths(self, ax: Axes | None = None) -> Axes:
        """Draw the distribution of path lengths; see :func:`.plots.path_lengths`."""
        return plots.path_lengths(self._dataset, ax)

    def plot_mean_gradient_by_length(self, ax: Axes | None = None) -> Axes:
        """Draw the mean gradient norm of single paths; see :func:`.plots.mean_gradient_by_length`."""
        return plots.mean_gradient_by_length(self._dataset, ax)

    def plot_sum_gradient_by_length(self, ax: Axes | None = None) -> Axes:
        """Draw the norm of all paths of a length together; see :func:`.plots.sum_gradient_by_length`."""
        return plots.sum_gradient_by_length(self._dataset, ax)

    def plot_effective_paths(self, ax: Axes | None = None) -> Axes:
        """Draw the gradient that each path length carries; see :func:`.plots.effective_paths`."""
        return plots.effective_paths(self._dataset, ax)

    def plot_layer_gradient(self, ax: Axes | None = None) -> Axes:
        """Draw the gradient at each block by path length; see :func:`.plots.layer_gradient`."""
        return plots.layer_gradient(self._dataset, ax)

    def plot_training_curves(self, ax: Axes | None = None) -> Axes:
        """Draw how the training went; see :func:`.plots.training_curves`."""
        return plots.training_curves(self._dataset, ax)

    def plot_block_statistic(self, name: str = "branch_to_skip_ratio", ax: Axes | None = None) -> Axes:
        """Draw one number per block; see :func:`.plots.block_statistic`."""
        return plots.block_statistic(self._dataset, name, ax)

    def auc(self) -> float:
        r"""Return the normalised area under mean error e against ``n_deleted``: the mean error over that range.

        Returns:
            :math:`\frac{1}{b - a} \int_a^b e(d) \, \mathrm{d}d` by the trapezoidal rule, from the fewest deleted blocks
            a to the most b; between 0 and 1.

        Raises:
            ValueError: If the dataset has no ``error`` for at least two values of ``n_deleted``.
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
        """
        return decay_factor(self._required("mean_gradient_norm", 'PathGradient.analyze(data, method="sample")'))

    def most_important(self, n: int = 5) -> xr.DataArray:
        """Return the blocks whose deletion alone costs the most.

        Args:
            n: How many.

        Returns:
            ``error`` (layer) of these blocks, the largest first.

        Raises:
            ValueError: If the dataset has no ``error`` over ``layer``.
        """
        error = self._required("error", "Deletion.analyze(data)")
        if error.dims != ("layer",):
            raise ValueError(f"expected the error with each block deleted alone, got it over {error.dims}.")
        return error.sortby(-error)[:n]

    def _required(self, name: str, source: str) -> xr.DataArray:
        if name not in self._dataset.data_vars:
            seen = list(map(str, self._dataset.data_vars))
            raise ValueError(f"expected a dataset with {name!r}, as {source} returns it, got {seen}.")
        return self._dataset[name]
