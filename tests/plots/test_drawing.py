import builtins

import numpy as np
import pytest
import xarray as xr
from helpers import synthetic
from helpers.drawn import error_bars, legend, level
from matplotlib import pyplot
from matplotlib.figure import Figure

from resnet_lesion import plots
from resnet_lesion.plots import drawing


def test_blocks_are_told_apart_only_where_some_downsample():
    plain = synthetic.deletion().assign_coords(is_downsampling=("layer", [False] * 12))
    assert plots.error_by_block(plain).get_legend() is None


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


@pytest.mark.parametrize(("counts", "ticks"), [([1, 2, 6], [1, 2, 6]), (range(1, 21), range(1, 21, 2))])
def test_ticks_are_at_numbers_that_were_measured(counts, ticks):
    error = xr.DataArray(np.linspace(0, 1, len(counts)), {"n_deleted": list(counts)}, name="error")
    assert plots.error_by_number_deleted(error.to_dataset()).get_xticks().tolist() == list(ticks)


def test_units_are_in_the_label():
    dataset = synthetic.path_gradient()
    dataset["sum_gradient_norm"].attrs["units"] = "nat"
    assert plots.sum_gradient_by_length(dataset).get_ylabel() == "Norm of the summed gradient (nat)"


def test_a_name_is_no_formula(tmp_path):
    ax = plots.error_by_block(synthetic.deletion().assign_attrs(model=r"bad $\frac{ $ name"))
    ax.figure.savefig(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").exists()


def test_axes_that_are_given_are_kept_and_new_ones_are_pyplots():
    ax = Figure().subplots()
    assert drawing.axes_or_new(ax) is ax
    new = drawing.axes_or_new(None)
    assert new.get_figure() is pyplot.gcf()
    assert drawing.new_figure().get_size_inches().tolist() == new.get_figure().get_size_inches().tolist()
    assert len(pyplot.get_fignums()) == 1


def test_without_matplotlib_it_is_said_what_to_install(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("matplotlib"):
            raise ModuleNotFoundError(f"No module named {name!r}")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    for make in (drawing.new_figure, lambda: drawing.axes_or_new(None)):
        with pytest.raises(ModuleNotFoundError, match=r"pip install 'resnet-lesion\[plot\]'"):
            make()


def test_a_variable_over_other_dimensions_is_refused_with_what_is_there():
    dataset = synthetic.deletion()[["error", "loss"]]
    drawing.require(dataset, "error", "layer")
    with pytest.raises(ValueError, match="'error' over n_deleted and draw, got 'A synthetic result' with error, loss"):
        drawing.require(dataset, "error", "n_deleted", "draw")
    with pytest.raises(ValueError, match="expected a dataset with 'error', got one with no variable"):
        drawing.require(xr.Dataset(), "error")


@pytest.mark.parametrize(
    ("attrs", "label"),
    [
        ({}, "mean loss"),
        ({"long_name": "mean cross-entropy"}, "mean cross-entropy"),
        ({"long_name": "mean cross-entropy", "units": "1"}, "mean cross-entropy"),
        ({"long_name": "mean cross-entropy", "units": "nat"}, "mean cross-entropy (nat)"),
        ({"units": "nat"}, "mean loss (nat)"),
    ],
)
def test_labels(attrs, label):
    assert drawing.axis_label(xr.DataArray(0.0, name="mean_loss", attrs=attrs)) == label


def test_words():
    assert drawing.capital("kendall's Tau") == "Kendall's Tau"
    assert drawing.capital("") == ""
    lines = drawing.wrapped("word " * 20).split("\n")
    assert max(map(len, lines)) <= 38
    assert " ".join(lines) == ("word " * 20).strip()


@pytest.mark.parametrize("sizes", [[3, 4, 5], [30, 2, 7], [1], [18, 18], [40]])
def test_ticks_are_at_each_stages_first_block_and_every_few_from_there(sizes):
    stage = [s for s, size in enumerate(sizes) for _ in range(size)]
    names = [f"layer{i}" for i in range(len(stage))]
    ticks, labels = drawing.layer_ticks(xr.Dataset(coords={"layer": names, "stage": ("layer", stage)}))
    step = -(-len(names) // 18)
    expected, start = [], 0
    for size in sizes:
        # none just before the next stage's first
        expected += [start + i for i in range(0, size, step) if i == 0 or size - i > step / 2]
        start += size
    assert ticks == expected
    assert labels == [names[i] for i in ticks]


def test_points_have_bars_up_and_down_to_their_interval():
    ax = Figure().subplots()
    x, y, low, high = np.arange(3), np.array([0.2, 0.5, 0.9]), np.array([0.1, 0.5, 0.8]), np.array([0.4, 0.6, 0.9])
    drawing.points(ax, x, y, (low, high), color=drawing.BLUE, label="some")
    for drawn, given in zip(error_bars(ax, "some"), (x, y, low, high), strict=True):
        np.testing.assert_allclose(drawn, given)


def test_an_interval_that_rounding_put_beside_its_point_is_none_there():
    ax = Figure().subplots()
    drawing.points(ax, np.zeros(1), np.zeros(1), (np.full(1, 1e-17), np.full(1, 0.1)), color=drawing.BLUE, label="some")
    _, _, low, high = error_bars(ax, "some")
    assert (low.item(), high.item()) == (0, 0.1)


def test_an_interval_needs_both_of_its_ends():
    dataset = synthetic.deletion()
    low, high = drawing.error_interval(dataset)
    np.testing.assert_array_equal(low, dataset.error_low)
    np.testing.assert_array_equal(high, dataset.error_high)
    assert drawing.error_interval(dataset.drop_vars("error_low")) is None


def test_only_known_levels_are_drawn():
    ax = Figure().subplots()
    drawing.reference_levels(ax, xr.Dataset())
    assert not ax.texts
    drawing.reference_levels(ax, xr.Dataset({"baseline_error": 0.25}))
    assert level(ax, "whole network") == 0.25


@pytest.mark.parametrize("prefix", ["", "sum_"])
def test_the_effective_range_is_shaded_half_a_block_beyond_its_ends(prefix):
    ax = Figure().subplots()
    drawing.shade_effective(ax, xr.Dataset({f"{prefix}effective_low": 3, f"{prefix}effective_high": 5}))
    (span,) = ax.patches
    assert (span.get_x(), span.get_width()) == (2.5, 3)
    ax.legend()
    assert legend(ax) == ["effective range, 3 to 5 blocks"]


def test_without_an_effective_range_nothing_is_shaded():
    ax = Figure().subplots()
    drawing.shade_effective(ax, synthetic.deletion())
    assert not ax.patches
