import numpy as np
import pytest
import xarray as xr

from resnet_lesion.results.variables import provenance, variable


@pytest.mark.parametrize("over", ["sum", "mean", "maximum"])
def test_a_variable_says_what_it_is(over):
    made = variable(["layer", "draw"], np.zeros((2, 3)), "mean cross-entropy", "nat", over_images=over)
    assert made.dims == ("layer", "draw")
    assert made.attrs == {"long_name": "mean cross-entropy", "units": "nat", "cell_methods": f"sample: {over}"}


def test_a_number_has_the_unit_one_and_nothing_over_the_images():
    made = variable((), 3, "images")
    assert (made.dims, made.item()) == ((), 3)
    assert made.attrs == {"long_name": "images", "units": "1"}


def test_attributes_that_are_there_already_stay():
    dataset = xr.Dataset({"x": 1}, attrs={"title": "own", "n_classes": 4})
    found = provenance(dataset, {"title": "of the run", "model": "tiny"})
    assert found.attrs == {"title": "own", "n_classes": 4, "model": "tiny"}


def test_coordinates_are_named():
    coords = {"n_deleted": [1, 2], "draw": [0], "layer": ("layer", ["a"], {"long_name": "residual block"})}
    found = provenance(xr.Dataset(coords=coords), {})
    assert found.n_deleted.attrs == {"long_name": "number of deleted blocks", "units": "1"}
    assert found.draw.attrs["long_name"] == "number of the random repetition"
    assert found.layer.attrs == {"long_name": "residual block"}
    assert "path_length" not in found.coords
