from itertools import pairwise

import numpy as np
import pytest
import xarray as xr
from helpers import synthetic

from resnet_lesion.results.quantities import area, decay_factor, decay_line, groups, has, mean_over_draws, percent


def test_groups_are_the_datasets_that_hold_something():
    one, other = synthetic.deletion(), synthetic.reorder()
    assert [(path, found.identical(one)) for path, found in groups(one)] == [("", True)]
    tree = xr.DataTree.from_dict({"a/deletion": one, "reorder": other, "empty": xr.Dataset(attrs={"x": 1})})
    found = dict(groups(tree))
    assert list(found) == ["reorder", "a/deletion"]
    xr.testing.assert_identical(found["a/deletion"], one)
    assert [path for path, _ in groups(xr.DataTree(one))] == [""]


def test_has():
    dataset = synthetic.random_deletion()
    assert has(dataset, "error")
    assert has(dataset, "error", "draw", "n_deleted")
    assert not has(dataset, "error", "draw", "layer")
    assert not has(dataset, "n_deleted"), "a coordinate is no variable"


def test_mean_over_draws_is_that_of_a_loop():
    values = np.random.default_rng(0).random((2, 3, 4))
    array = xr.DataArray(values, dims=("a", "draw", "b"))
    expected = [sum(values[i, j, k] for j in range(3) for k in range(4)) / 12 for i in range(2)]
    np.testing.assert_allclose(mean_over_draws(array, "a"), expected)
    xr.testing.assert_identical(mean_over_draws(array, "a", "draw", "b"), array)


def test_area_is_that_of_the_trapezoids_between_the_numbers_in_order():
    numbers, errors = [9, 1, 4, 2], [0.7, 0.0, 0.4, 0.3]
    ranked = sorted(zip(numbers, errors, strict=True))
    trapezoids = [(y0 + y1) / 2 * (x1 - x0) for (x0, y0), (x1, y1) in pairwise(ranked)]
    mean = xr.DataArray(errors, {"n_deleted": numbers})
    assert area(mean) == pytest.approx(sum(trapezoids) / 8)


def slope_and_rest(x, y):
    """The slope of the least-squares line, its standard error and the squared correlation, by their definitions."""
    n, mean_x, mean_y = len(x), sum(x) / len(x), sum(y) / len(y)
    xx = sum((a - mean_x) ** 2 for a in x)
    yy = sum((b - mean_y) ** 2 for b in y)
    xy = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    slope = xy / xx
    left = sum((b - mean_y - slope * (a - mean_x)) ** 2 for a, b in zip(x, y, strict=True))
    return slope, (left / (n - 2) / xx) ** 0.5, xy**2 / (xx * yy)


@pytest.mark.parametrize("lengths", [range(9), [0, 2, 3, 7, 8, 9, 12, 13, 20]])
def test_the_line_is_that_of_least_squares_where_there_is_a_gradient(lengths):
    norms = 3 * 0.6 ** np.array(lengths) * np.random.default_rng(1).uniform(0.5, 2, 9)
    gradient = xr.DataArray(norms, {"path_length": list(lengths)})
    gradient[[1, 4]], gradient[6] = 0, np.nan
    kept = [i for i in range(9) if gradient[i] > 0]
    expected = slope_and_rest([lengths[i] for i in kept], [np.log10(norms[i]) for i in kept])
    line = decay_line(gradient)
    np.testing.assert_allclose((line.slope, line.stderr, line.rvalue**2), expected)
    assert decay_factor(gradient) == pytest.approx(10 ** expected[0])


def test_an_exact_exponential_decays_by_its_factor():
    gradient = xr.DataArray(7 * 0.25 ** np.arange(5), {"path_length": range(5)})
    assert decay_factor(gradient) == pytest.approx(0.25)


@pytest.mark.parametrize("norms", [[0, 0, 0], [0, 2.0, 0], [np.nan, 2.0, 0], [np.inf, 2.0, 0]])
def test_no_line_through_one_point(norms):
    assert np.isnan(decay_factor(xr.DataArray(norms, {"path_length": range(3)})))


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0, "0 %"),
        (0.0045, "0.45 %"),
        (0.0134, "1.3 %"),
        (0.0999, "10 %"),
        (0.815, "81.5 %"),
        (0.9996, "99.96 %"),
        (0.99999, "99.99 %"),
        (1, "100 %"),
    ],
)
def test_percent(share, text):
    assert percent(share) == text
