import numpy as np
import pytest
import xarray as xr
from helpers import synthetic
from helpers.drawn import curve, error_bars, legend, level
from matplotlib.colors import LogNorm, to_hex

import resnet_lesion as rl
from resnet_lesion import plots


def test_path_lengths_marks_where_most_paths_are_and_the_effective_range():
    dataset = synthetic.effective_path()
    ax = plots.path_lengths(dataset)
    heights = [bar.get_height() for bar in ax.patches[: synthetic.N + 1]]
    np.testing.assert_array_equal(heights, rl.path_fraction(12))
    blue = [i for i, bar in enumerate(ax.patches[: synthetic.N + 1]) if to_hex(bar.get_facecolor()) == "#0072b2"]
    assert blue == list(range(3, 10))  # Binomial(12, 1/2): 96.1 % within 6 +- 3, 85 % within 6 +- 2
    assert legend(ax) == ["3 to 9 blocks: 96.1 % of all paths", "effective range, 2 to 6 blocks: 61 % of all paths"]


def test_remaining_paths_draws_at_most_six_of_the_numbers():
    dataset = synthetic.random_deletion()
    ax = plots.remaining_paths(dataset)
    assert legend(ax) == ["1", "2", "6"]
    np.testing.assert_array_equal(curve(ax, "6")[1], dataset.remaining_fraction.sel(n_deleted=6))
    many = xr.Dataset({"remaining_fraction": rl.remaining_fraction(54, range(1, 21))})
    assert legend(plots.remaining_paths(many)) == ["1", "5", "9", "12", "16", "20"]


def test_mean_gradient_is_drawn_on_a_logarithmic_scale_with_an_interval_that_stays_positive():
    dataset = synthetic.sampled_path_gradient()
    dataset["gradient_norm_standard_error"][5] = 10 * dataset.mean_gradient_norm[5]
    ax = plots.mean_gradient_by_length(dataset)
    assert ax.get_yscale() == "log"
    _, y, low, high = error_bars(ax, "mean over paths and images with 95 % interval")
    np.testing.assert_array_equal(y, dataset.mean_gradient_norm)
    factor = np.exp(1.96 * float(dataset.gradient_norm_standard_error[0] / dataset.mean_gradient_norm[0]))
    np.testing.assert_allclose([low[0], high[0]], [1 / factor, factor])
    assert (low > 0).all()


def test_a_vanished_gradient_is_drawn_too():
    dataset = synthetic.sampled_path_gradient() * 0
    assert plots.mean_gradient_by_length(dataset).get_yscale() == "linear"
    table = synthetic.path_gradient()
    table["layer_gradient_norm"] = table.layer_gradient_norm * 0
    plots.layer_gradient(table).get_figure().canvas.draw()


def test_sum_gradient_is_compared_with_the_whole_gradient():
    dataset = synthetic.path_gradient().assign(full_gradient_norm=1.5)
    ax = plots.sum_gradient_by_length(dataset)
    assert ax.get_yscale() == "log"
    np.testing.assert_array_equal(ax.get_lines()[0].get_ydata(), dataset.sum_gradient_norm)
    assert level(ax, "whole gradient") == 1.5
    assert ax.get_ylabel() == "Norm of the summed gradient"


@pytest.mark.parametrize("draw", [plots.sum_gradient_by_length, plots.mean_gradient_by_length])
def test_a_single_length_with_a_gradient_is_seen_among_all(draw):
    dataset = synthetic.path_gradient().merge(synthetic.sampled_path_gradient(), compat="override")
    alone = dataset.where(dataset.path_length == 0, 0.0)
    ax = draw(alone)
    low, high = ax.get_ylim()
    assert low < 1 < high
    assert high / low >= 9.99
    assert ax.get_xlim() == (-0.5, synthetic.N + 0.5)


def test_effective_paths_shades_the_range():
    dataset = synthetic.effective_path()
    ax = plots.effective_paths(dataset)
    np.testing.assert_array_equal([bar.get_height() for bar in ax.patches[:-1]], dataset.total_gradient)
    span = ax.patches[-1]
    assert (span.get_x(), span.get_x() + span.get_width()) == (1.5, 6.5)
    assert legend(ax) == ["effective range, 2 to 6 blocks: 61 % of all paths"]


def test_effective_paths_of_exact_sums_are_drawn_by_their_share():
    sampled = synthetic.effective_path()
    names = ("gradient_share", "effective_low", "effective_high")
    dataset = sampled[["path_fraction", *names]].rename({name: f"sum_{name}" for name in names})
    ax = plots.effective_paths(dataset)
    np.testing.assert_array_equal([bar.get_height() for bar in ax.patches[:-1]], sampled.gradient_share)
    assert legend(ax) == ["effective range, 2 to 6 blocks"]


def test_layer_gradient_is_a_heat_map_with_logarithmic_colours_and_no_colour_where_there_is_no_path():
    dataset = synthetic.path_gradient()
    ax = plots.layer_gradient(dataset)
    (mesh,) = ax.collections
    drawn = mesh.get_array()
    np.testing.assert_array_equal(drawn.filled(0), dataset.layer_gradient_norm)
    assert drawn.mask.sum() == (dataset.layer_gradient_norm == 0).sum()
    assert isinstance(mesh.norm, LogNorm)
    assert mesh.norm.vmax == 1
    top, bottom = ax.get_ylim()[::-1]
    assert top < bottom  # the first block is at the top
    assert mesh.colorbar.ax.get_ylabel() == "Norm of the gradient at the block"
