"""``dataset.lesion``: the figures and the scalars of a result, on the xarray Dataset itself."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Concatenate, ParamSpec

import xarray as xr

from resnet_lesion import plots
from resnet_lesion.checks import as_positive
from resnet_lesion.results.gradients import effective_range
from resnet_lesion.results.quantities import area, decay_factor, has, mean_over_draws

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_P = ParamSpec("_P")


def _figure(draw: Callable[Concatenate[xr.Dataset, _P], Axes]) -> Callable[Concatenate[LesionAccessor, _P], Axes]:
    """Make a function that draws a dataset a method of the accessor, with its description minus the dataset."""

    def method(self: LesionAccessor, /, *args: _P.args, **kwargs: _P.kwargs) -> Axes:
        return draw(self._dataset, *args, **kwargs)

    signature, name = inspect.signature(draw), f"plot_{draw.__name__}"
    _, *options = signature.parameters.values()
    itself = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    # the example calls the method, on the dataset that it would pass to the function
    described = re.sub("\n +dataset: .*", "", inspect.getdoc(draw) or "")
    method.__name__, method.__qualname__ = name, f"LesionAccessor.{name}"
    method.__doc__ = described.replace(f"rl.plots.{draw.__name__}(result, ", f"result.lesion.{name}(")
    method.__dict__["__signature__"] = signature.replace(parameters=[itself, *options])
    return method


class LesionAccessor:
    """Figures and scalars of a result of this package, as ``dataset.lesion``.

    Args:
        dataset: What an analyzer returned, or one group of what :func:`resnet_lesion.study` returned.

    Example:
        >>> import resnet_lesion as rl, timm, torch
        >>> model = timm.create_model("resnet18", num_classes=4, zero_init_last=False)
        >>> data, quiet = (torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 3])), {"show_progress": False}
        >>> alone = rl.Deletion(model).analyze(data, **quiet)
        >>> alone.lesion.plot_error_by_block().get_xlabel(), alone.lesion.most_important(3).sizes["layer"]
        ('Deleted block', 3)
        >>> effective = rl.EffectivePath(model).analyze(data, n_draws=2, **quiet)
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
            >>> import resnet_lesion as rl, xarray as xr
            >>> result = xr.Dataset({"error": ("layer", [0.5, 0.1])}, {"layer": ["layer1.0", "layer1.1"]})
            >>> result.lesion.plot().get_xlabel()
            'Deleted block'
        """
        available = plots.available(self._dataset)
        if not available:
            seen = list(map(str, self._dataset.data_vars))
            raise ValueError(f"expected a result of an analyzer, got a dataset with nothing to draw among {seen}.")
        return next(iter(available.values()))(self._dataset, ax=ax)

    plot_error_by_block = _figure(plots.error_by_block)
    plot_error_by_number_deleted = _figure(plots.error_by_number_deleted)
    plot_error_by_kendall_tau = _figure(plots.error_by_kendall_tau)
    plot_error_by_lesion = _figure(plots.error_by_lesion)
    plot_remaining_paths = _figure(plots.remaining_paths)
    plot_path_lengths = _figure(plots.path_lengths)
    plot_mean_gradient_by_length = _figure(plots.mean_gradient_by_length)
    plot_sum_gradient_by_length = _figure(plots.sum_gradient_by_length)
    plot_effective_paths = _figure(plots.effective_paths)
    plot_layer_gradient = _figure(plots.layer_gradient)
    plot_training_curves = _figure(plots.training_curves)
    plot_block_statistic = _figure(plots.block_statistic)

    def auc(self) -> float:
        r"""Return the normalised area under mean error e against ``n_deleted``: the mean error over that range.

        Returns:
            :math:`\frac{1}{b - a} \int_a^b e(d) \, \mathrm{d}d` by the trapezoidal rule, from the fewest deleted blocks
            a to the most b; between 0 and 1.

        Raises:
            ValueError: If the dataset has no ``error`` for at least two values of ``n_deleted``.

        Example:
            >>> import resnet_lesion as rl, xarray as xr
            >>> result = xr.Dataset({"error": ("n_deleted", [0.0, 0.25, 0.5])}, {"n_deleted": [1, 2, 3]})
            >>> result.lesion.auc()
            0.25
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
            >>> import resnet_lesion as rl, xarray as xr
            >>> xr.Dataset({"effective_low": 5, "effective_high": 17}).lesion.effective_range()
            (5, 17)
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
            >>> import resnet_lesion as rl, xarray as xr
            >>> result = xr.Dataset({"mean_gradient_norm": ("path_length", [1, 0.1, 0.01])}, {"path_length": [0, 1, 2]})
            >>> round(result.lesion.decay_factor(), 6)
            0.1
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
            >>> import resnet_lesion as rl, xarray as xr
            >>> result = xr.Dataset({"error": ("layer", [0.5, 0.1, 0.3])}, {"layer": ["a.0", "a.1", "b.0"]})
            >>> result.lesion.most_important(2).layer.values.tolist()
            ['a.0', 'b.0']
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
