import numpy as np
import pytest
from helpers import synthetic
from helpers.drawn import curve, error_bars, level

from resnet_lesion import plots


def test_error_by_block_tells_downsampling_blocks_apart_and_draws_intervals():
    dataset = synthetic.deletion()
    ax = plots.error_by_block(dataset)
    x, y, low, high = error_bars(ax, "downsampling block")
    assert x.tolist() == [4, 8]
    np.testing.assert_array_equal(y, dataset.error[[4, 8]])
    np.testing.assert_allclose(low, dataset.error_low[[4, 8]])
    np.testing.assert_allclose(high, dataset.error_high[[4, 8]])
    x, y, *_ = error_bars(ax, "other block")
    assert x.tolist() == [i for i in range(12) if i not in (4, 8)]
    assert y[0] == 0.5


def test_error_by_block_draws_the_whole_network_and_chance():
    ax = plots.error_by_block(synthetic.deletion())
    assert level(ax, "whole network") == 0.02
    assert level(ax, "chance") == 0.9
    assert ax.get_ylim()[0] == 0
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("Deleted block", "Error")
    assert ax.get_title("left") == "Error with each block deleted alone: tiny.test"


def test_deletions_of_several_networks():
    short = synthetic.deletion().isel(layer=slice(0, 5))
    ax = plots.compare_deletions({"long_one": synthetic.deletion(), "short": short})
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["long one (12 blocks)", "short (5 blocks)"]
    long, ringed = ax.lines[1], ax.lines[3]  # after the level of guessing; the points are between them
    np.testing.assert_allclose(long.get_xdata(), np.linspace(0, 1, 12))
    np.testing.assert_allclose(long.get_ydata(), synthetic.deletion().error)
    np.testing.assert_allclose(ringed.get_xdata(), np.linspace(0, 1, 12)[[4, 8]])
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["first", "middle", "last"]
    with pytest.raises(ValueError, match="expected results of 1 to 6 networks, got 0"):
        plots.compare_deletions({})


def test_error_by_number_deleted_draws_mean_draws_and_band():
    ax = plots.error_by_number_deleted(synthetic.random_deletion())
    x, y = curve(ax, "mean of 3 draws")
    assert x.tolist() == [1, 2, 6]
    np.testing.assert_allclose(y, [0.1, 0.2, 0.6])
    x, y = curve(ax, "one draw")
    assert x.tolist() == [1, 1, 1, 2, 2, 2, 6, 6, 6]
    np.testing.assert_allclose(y, synthetic.random_deletion().error.values.ravel())
    (band,) = ax.collections
    corners = band.get_paths()[0].vertices
    at_six = corners[corners[:, 0] == 6, 1]
    np.testing.assert_allclose([at_six.min(), at_six.max()], np.quantile([0.5, 0.6, 0.7], [0.1, 0.9]))
    assert ax.get_xlabel() == "Number of deleted blocks"
    assert level(ax, "chance") == 0.9


def test_one_draw_has_no_band():
    ax = plots.error_by_number_deleted(synthetic.random_deletion().isel(draw=0))
    assert not ax.collections
    np.testing.assert_allclose(curve(ax, "error")[1], [0.0, 0.1, 0.5])


def test_error_by_kendall_tau_draws_every_draw_and_the_damage_grows_to_the_right():
    dataset = synthetic.reorder()
    ax = plots.error_by_kendall_tau(dataset)
    x, y = curve(ax, "one draw")
    np.testing.assert_array_equal(x, dataset.kendall_tau.values.ravel())
    np.testing.assert_array_equal(y, dataset.error.values.ravel())
    x, y = curve(ax, "mean by number of swaps")
    np.testing.assert_allclose(x, [0.4, 0.85, 0.97])
    np.testing.assert_allclose(y, [0.6, 0.15, 0.03])
    left, right = ax.get_xlim()
    assert left > right
    assert ax.get_xlabel() == "Kendall's tau of the order with the original"


def test_error_by_lesion():
    ax = plots.error_by_lesion(synthetic.evaluation())
    points = ax.containers[0].lines[0]
    assert points.get_xdata().tolist() == [0, 1, 2]
    assert points.get_ydata().tolist() == [0.02, 0.5, 0.9]
    assert ax.get_xlabel() == "Lesion"


def test_block_statistic():
    ax = plots.block_statistic(synthetic.block_statistics(), "alignment")
    y = ax.containers[1].lines[0].get_ydata()
    np.testing.assert_allclose(y, np.delete(np.linspace(-0.4, 0.7, 12), [4, 8]))
    assert ax.get_title("left") == "Alignment: tiny.test"
    assert ax.get_ylabel() == "Cosine of the update with the negative\ngradient"


def test_training_curves():
    ax = plots.training_curves(synthetic.training())
    np.testing.assert_allclose(ax.lines[0].get_ydata(), 0.9 / np.arange(1, 6))
    assert ax.get_xlabel() == "Number of passes through the data"
    ax = plots.training_curves(synthetic.training().drop_vars("validation_error"))
    assert ax.get_ylabel() == "Mean cross-entropy"
