"""Every analysis on a tiny network, and when two of their results are the same."""

import numpy as np
import xarray as xr

import resnet_lesion as rl

QUIET = {"show_progress": False}
ANALYSES = {
    "evaluation": lambda model, data, **how: rl.evaluate(
        model, data, [[2, 1, 0, 3, 4, 5], [-1, 1, 1, 3, 4, 5]], by_class=True, **how, **QUIET
    ),
    "deletion": lambda model, data, **how: rl.Deletion(model).analyze(data, **how, **QUIET),
    "random_deletion": lambda model, data, **how: rl.Deletion(model).analyze(
        data, n_deleted=[1, 3], n_draws=4, **how, **QUIET
    ),
    "reorder": lambda model, data, **how: rl.Reorder(model).analyze(data, n_swaps=[1, 2], n_draws=3, **how, **QUIET),
    "path_gradient": lambda model, data, **how: rl.PathGradient(model).analyze(data, per_sample=True, **how, **QUIET),
    "sampled_path_gradient": lambda model, data, **how: rl.PathGradient(model).analyze(
        data, method="sample", n_draws=5, **how, **QUIET
    ),
    "block_statistics": lambda model, data, **how: rl.BlockStatistics(model).analyze(data, **how, **QUIET),
}


# what is not a count: sums of float64 numbers in another order, and of images in other batches
CLOSE = {"rtol": 1e-11, "atol": 1e-13}


class Stop(BaseException):
    pass


class Batches:
    """Batches that stop the run after some of them, and count how many were asked for."""

    def __init__(self, data, size, stop_after=None):
        self.data, self.size, self.stop_after, self.n_asked = data, size, stop_after, 0

    def __iter__(self):
        for i, batch in enumerate(zip(*(part.split(self.size) for part in self.data), strict=True)):
            if i == self.stop_after:
                raise Stop
            self.n_asked += 1
            yield batch


def check_identical(found, expected):
    xr.testing.assert_identical(found.drop_attrs(deep=False), expected.drop_attrs(deep=False))
    assert {**found.attrs, "created": ""} == {**expected.attrs, "created": ""}


def check_merged(found, expected):
    """Whole numbers, masks and names equal, the rest up to rounding; and nothing more or less."""
    assert set(found.variables) == set(expected.variables)
    for name, array in expected.variables.items():
        assert found[name].dims == array.dims, name
        assert found[name].dtype == array.dtype, name
        assert found[name].attrs == array.attrs, name
        if array.dtype.kind == "f" and name not in ("agreement", "error", "error_low", "error_high", "baseline_error"):
            np.testing.assert_allclose(found[name].values, array.values, **CLOSE, err_msg=name)
        else:
            np.testing.assert_array_equal(found[name].values, array.values, err_msg=name)
    changing = ("created", "data", "block_evaluations")
    for attrs in (found.attrs, expected.attrs):
        assert not attrs.keys() & {"shard"}
    assert {key: value for key, value in found.attrs.items() if key not in changing} == {
        key: value for key, value in expected.attrs.items() if key not in changing
    }
    assert found.attrs["data"] == expected.attrs["data"]
