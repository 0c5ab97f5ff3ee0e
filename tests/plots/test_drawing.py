import numpy as np
import pytest
import xarray as xr
from helpers import synthetic
from helpers.drawn import level

from resnet_lesion import plots


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
