import matplotlib

matplotlib.use("Agg")

import numpy as np
import pytest
import xarray as xr
from helpers import synthetic
from matplotlib import pyplot
from matplotlib.colors import LogNorm, to_hex
from matplotlib.image import imread

import resnet_lesion as rl
from resnet_lesion import plots
from resnet_lesion.plots import catalogue


@pytest.fixture(autouse=True)
def _close():
    yield
    pyplot.close("all")


def curve(ax, label):
    (line,) = [line for line in ax.get_lines() if line.get_label() == label]
    return line.get_xdata(), line.get_ydata()


def error_bars(ax, label):
    """Points and vertical bars of an errorbar plot: x, y, low, high."""
    (container,) = [container for container in ax.containers if container.get_label() == label]
    points, _, (bars,) = container.lines
    ends = np.array([segment[:, 1] for segment in bars.get_segments()])
    return points.get_xdata(), points.get_ydata(), ends[:, 0], ends[:, 1]


def level(ax, name):
    """The height of the horizontal line that is named at the right edge."""
    (text,) = [text for text in ax.texts if text.get_text() == name]
    assert any(set(line.get_ydata()) == {text.get_position()[1]} for line in ax.get_lines())
    return text.get_position()[1]


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


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


def test_blocks_are_told_apart_only_where_some_downsample():
    plain = synthetic.deletion().assign_coords(is_downsampling=("layer", [False] * 12))
    assert plots.error_by_block(plain).get_legend() is None


def test_error_by_block_draws_the_whole_network_and_chance():
    ax = plots.error_by_block(synthetic.deletion())
    assert level(ax, "whole network") == 0.02
    assert level(ax, "chance") == 0.9
    assert ax.get_ylim()[0] == 0
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("Deleted block", "Error")
    assert ax.get_title("left") == "Error with each block deleted alone: tiny.test"


def test_chance_comes_from_the_classes_counted_or_is_left_out():
    dataset = synthetic.deletion()
    del dataset.attrs["n_classes"]
    assert "chance" not in [text.get_text() for text in plots.error_by_block(dataset).texts]
    assert level(plots.error_by_block(dataset.assign_coords({"class": range(4)})), "chance") == 0.75


def test_names_of_levels_that_nearly_coincide_do_not_overlap():
    dataset = synthetic.deletion().assign(baseline_error=0.88)
    texts = {text.get_text(): text.get_verticalalignment() for text in plots.error_by_block(dataset).texts}
    assert texts == {"whole network": "top", "chance": "bottom"}


def test_layer_names_are_thinned_but_each_stage_begins_with_one():
    names = [f"stages.{s}.blocks.{b}" for s in range(3) for b in range(18)]
    dataset = xr.Dataset(
        {"error": ("layer", np.zeros(54))}, coords={"layer": names, "stage": ("layer", np.arange(54) // 18)}
    )
    ax = plots.error_by_block(dataset)
    assert [label.get_text() for label in ax.get_xticklabels()] == names[::3]
    assert ax.get_xticks().tolist() == list(range(0, 54, 3))


def test_every_layer_of_a_small_network_is_named():
    ax = plots.error_by_block(synthetic.deletion())
    assert [label.get_text() for label in ax.get_xticklabels()] == synthetic.LAYERS


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


@pytest.mark.parametrize(("counts", "ticks"), [([1, 2, 6], [1, 2, 6]), (range(1, 21), range(1, 21, 2))])
def test_ticks_are_at_numbers_that_were_measured(counts, ticks):
    error = xr.DataArray(np.linspace(0, 1, len(counts)), {"n_deleted": list(counts)}, name="error")
    assert plots.error_by_number_deleted(error.to_dataset()).get_xticks().tolist() == list(ticks)


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


def test_units_are_in_the_label():
    dataset = synthetic.path_gradient()
    dataset["sum_gradient_norm"].attrs["units"] = "nat"
    assert plots.sum_gradient_by_length(dataset).get_ylabel() == "Norm of the summed gradient (nat)"


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


@pytest.mark.parametrize("name", [name for name in catalogue._FIGURES if name != "error_by_lesion"])
def test_axes_that_are_given_are_drawn_on(name):
    groups = [*(group.to_dataset() for group in synthetic.tree().leaves), synthetic.training()]
    (dataset,) = [dataset for dataset in groups if name in plots.available(dataset)]
    _, (left, right) = pyplot.subplots(1, 2)
    assert plots.available(dataset)[name](dataset, ax=right) is right
    assert not left.has_data()
    assert len(pyplot.get_fignums()) == 1


@pytest.mark.parametrize("name", catalogue._FIGURES)
def test_a_dataset_without_the_variable_is_refused(name):
    with pytest.raises(ValueError, match=r"expected a dataset with '\w+'.*, got one with x\. dataset\.lesion\.plot"):
        catalogue._FIGURES[name][0](xr.Dataset({"x": ("layer", [1, 2])}))


def test_figures_of_a_study():
    drawn = plots.figures(synthetic.tree())
    assert list(drawn) == [
        "deletion-error_by_block",
        "random_deletion-error_by_number_deleted",
        "random_deletion-remaining_paths",
        "reorder-error_by_kendall_tau",
        "path_gradient-sum_gradient_by_length",
        "path_gradient-layer_gradient",
        "sampled_path_gradient-mean_gradient_by_length",
        "effective_path-effective_paths",
        "effective_path-path_lengths",
        "block_statistics-branch_to_skip_ratio",
        "block_statistics-alignment",
    ]
    assert not pyplot.get_fignums()


def test_figures_of_whatever_is_there():
    assert list(plots.figures(synthetic.deletion())) == ["error_by_block"]
    nested = xr.DataTree.from_dict({"small/deletion": synthetic.deletion(), "large/deletion": synthetic.deletion()})
    names = ["small-deletion-error_by_block", "large-deletion-error_by_block", "deletion-compared"]
    assert list(plots.figures(nested)) == names
    with pytest.raises(ValueError, match=r"nothing to draw: its variables are \['x'\]"):
        plots.figures(xr.Dataset({"x": ("y", ["a"])}))


def test_nothing_is_cut_off_the_files(tmp_path):
    makers = (synthetic.deletion, synthetic.path_gradient, synthetic.block_statistics)
    tree = xr.DataTree.from_dict({make.__name__: make() for make in makers})
    paths = plots.save_figures(tree, tmp_path / "new" / "folder")
    assert [path.name for path in paths] == [f"{name}.png" for name in plots.figures(tree)]
    for path in paths:
        pixels = imread(path)[..., :3]
        edges = [pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]]
        assert all((edge == 1).all() for edge in edges), path
        assert pixels.min() < 0.5


def test_a_name_is_no_formula(tmp_path):
    ax = plots.error_by_block(synthetic.deletion().assign_attrs(model=r"bad $\frac{ $ name"))
    ax.figure.savefig(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").exists()
