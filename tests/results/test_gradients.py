import json
from math import comb

import numpy as np
import pytest
import xarray as xr
from helpers import synthetic

from resnet_lesion.results.gradients import (
    effective_lengths,
    effective_of,
    effective_of_study,
    effective_range,
    over_draws,
    prefix_of,
    with_origin,
)

N = 4
# norms of three paths of each length of a network of four blocks, NaN where fewer were drawn
NORMS = np.array([[1.0, np.nan, np.nan], [0.8, 0.4, 0.6], [0.3, 0.2, np.nan], [0.1, 0.0, 0.05], [0.01, np.nan, np.nan]])
SUMS = np.array([1.0, 2.0, 0.5, 0.25, 0.05])


def sampled():
    coords = {"path_length": range(N + 1), "draw": range(3), "layer": list("abcd")}
    return xr.Dataset({"gradient_norm": (("path_length", "draw"), NORMS)}, coords, {"options": '{"seed": 3}'})


def exact():
    coords = {"path_length": range(N + 1), "layer": list("abcd")}
    return xr.Dataset({"sum_gradient_norm": ("path_length", SUMS)}, coords)


def shortest(shares, coverage):
    """The shortest range of lengths that holds the coverage, by trying all of them."""
    ranges = [(b - a, a, b) for a in range(len(shares)) for b in range(a, len(shares))]
    width = min(width for width, a, b in ranges if sum(shares[a : b + 1]) >= coverage - 1e-9)
    return max(((sum(shares[a : b + 1]), a, b) for w, a, b in ranges if w == width))[1:]


@pytest.mark.parametrize("coverage", [0.5, 0.8, 0.95, 1.0])
def test_the_papers_range_is_that_of_loops_over_lengths_and_paths(coverage):
    totals = []
    for length in range(N + 1):
        drawn = [norm for norm in NORMS[length] if not np.isnan(norm)]
        totals.append(comb(N, length) * sum(drawn) / len(drawn))
    shares = [total / sum(totals) for total in totals]
    low, high = shortest(shares, coverage)
    found = effective_lengths([sampled()], coverage, 50, 0)
    np.testing.assert_allclose(found.total_gradient, totals)
    np.testing.assert_allclose(found.gradient_share, shares)
    assert (found.effective_low, found.effective_high) == (low, high)
    inside = sum(comb(N, length) for length in range(low, high + 1)) / 2**N
    assert found.effective_path_fraction == pytest.approx(inside)
    assert effective_range(found) == (low, high)


@pytest.mark.parametrize("coverage", [0.5, 0.8, 0.95, 1.0])
def test_the_range_of_exact_sums_is_that_of_a_loop(coverage):
    shares = [norm / sum(SUMS) for norm in SUMS]
    low, high = shortest(shares, coverage)
    found = effective_lengths([exact()], coverage, 50, 0)
    np.testing.assert_allclose(found.sum_gradient_share, shares)
    assert (found.sum_effective_low, found.sum_effective_high) == (low, high)
    assert effective_range(found) == (low, high)
    assert prefix_of(found) == "sum_"


def test_both_stand_together_and_the_papers_comes_first():
    found = effective_lengths([sampled(), exact()], 0.95, 50, 0)
    assert {"gradient_share", "sum_gradient_share"} <= set(found)
    assert prefix_of(found) == ""
    assert effective_range(found) == (int(found.effective_low), int(found.effective_high))


def test_intervals_depend_on_the_seed_alone_and_need_two_paths_of_each_length_that_has_them():
    few = effective_lengths([sampled()], 0.95, 50, 0)
    assert few.gradient_share_interval.isnull().sum() == 0  # a single path of no block, and of all, is all there are
    xr.testing.assert_identical(few, effective_lengths([sampled()], 0.95, 50, 0))
    assert not few.equals(effective_lengths([sampled()], 0.95, 50, 1))
    alone = effective_lengths([sampled().isel(draw=[0])], 0.95, 50, 0)
    assert alone.effective_low_interval.isnull().all()
    assert alone.gradient_share_interval.isnull().all()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (xr.Dataset({"error": ("layer", [0.0])}), "expected a Dataset from PathGradient"),
        (exact().isel(path_length=slice(0, 3)), "expected all path lengths from 0 to 4, got 3 of them"),
        (sampled().where(sampled().path_length != 2), "at least one path of each length"),
        (exact() * 0, "every path's gradient is zero"),
        (exact() * np.inf, "expected finite gradient norms"),
    ],
)
def test_what_has_no_effective_range_is_refused(source, message):
    with pytest.raises(ValueError, match=message):
        effective_lengths([source], 0.95, 50, 0)


def test_each_row_of_totals_has_its_own_range():
    totals = np.array([[1.0, 8.0, 1.0], [0.0, 0.0, 2.0]])
    shares, low, high, inside = effective_of(totals, np.array([0.25, 0.5, 0.25]), 0.8)
    assert shares.tolist() == [[0.1, 0.8, 0.1], [0, 0, 1]]
    assert (low.tolist(), high.tolist()) == ([1, 2], [1, 2])
    assert inside.tolist() == [0.5, 0.25]


def test_over_draws_is_a_loop_over_the_paths_that_were_drawn():
    found = over_draws(sampled())
    for length in range(N + 1):
        drawn = [norm for norm in NORMS[length] if not np.isnan(norm)]
        mean, one = sum(drawn) / len(drawn), found.sel(path_length=length)
        assert one.n_draws == len(drawn)
        assert one.mean_gradient_norm == pytest.approx(mean)
        if len(drawn) == 1:
            assert np.isnan(one.gradient_norm_standard_error)
            continue
        variance = sum((norm - mean) ** 2 for norm in drawn) / (len(drawn) - 1)
        assert one.gradient_norm_standard_error == pytest.approx((variance / len(drawn)) ** 0.5)
    xr.testing.assert_identical(over_draws(found), found)


def test_a_study_derives_its_range_from_both_of_its_gradients():
    source = sampled().assign_attrs(model="tiny", fingerprint="{}", shard="{}", title="Gradients")
    found = effective_of_study(source, exact())
    values = effective_lengths([sampled(), exact()], 0.95, 1000, 3)
    xr.testing.assert_equal(found, values)
    assert (found.attrs["model"], found.attrs["title"]) == ("tiny", "Effective path lengths")
    assert not {"fingerprint", "shard"} & set(found.attrs)
    options = {"coverage": 0.95, "n_bootstrap": 1000, "seed": 3, "measured": {"seed": 3}}
    assert json.loads(found.attrs["options"]) == options


def test_what_is_derived_says_what_it_was_derived_from():
    found = with_origin(xr.Dataset(), sampled().assign_attrs(device="cpu"), {"coverage": 0.9})
    assert found.attrs == {"device": "cpu", "title": "Effective path lengths", "options": '{"coverage": 0.9}'}


def test_a_result_without_a_range_is_refused():
    assert prefix_of(synthetic.deletion()) == ""
    with pytest.raises(ValueError, match="expected a dataset with 'effective_low'"):
        effective_range(synthetic.deletion())
