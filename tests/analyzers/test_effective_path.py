import json

import numpy as np
import pytest
import torch
import xarray as xr
from helpers.models import build, data
from hypothesis import given
from hypothesis import strategies as st

import resnet_lesion as rl
from resnet_lesion.results.gradients import shortest_range

QUIET = {"show_progress": False}


@given(st.lists(st.integers(0, 20), min_size=1, max_size=8).filter(any), st.sampled_from([0.5, 0.8, 0.95, 1.0]))
def test_shortest_range_is_the_best_of_all(weights, coverage):
    shares = np.array(weights) / sum(weights)
    (low,), (high,) = shortest_range(shares[None], coverage)
    n = len(shares)
    ranges = [(b - a, -shares[a : b + 1].sum(), a) for a in range(n) for b in range(a, n)]
    held = [r for r in ranges if -r[1] >= coverage - 1e-9]
    best = min(r[0] for r in held)
    assert high - low == best
    assert np.isclose(shares[low : high + 1].sum(), max(-r[1] for r in held if r[0] == best))


def test_the_papers_definition_by_hand():
    model = build()
    sampled = rl.PathGradient(model).analyze(data(), method="sample", n_draws=10, **QUIET)
    result = rl.EffectivePath(model).analyze(sampled, coverage=0.8)
    count = [1, 6, 15, 20, 15, 6, 1]
    total = [c * sampled.gradient_norm.values[k].mean() for k, c in enumerate(count)]
    np.testing.assert_allclose(result.path_count, count)
    np.testing.assert_allclose(result.total_gradient, total)
    np.testing.assert_allclose(result.gradient_share, np.array(total) / sum(total))
    low, high = int(result.effective_low), int(result.effective_high)
    assert result.gradient_share.sel(path_length=slice(low, high)).sum() >= 0.8
    np.testing.assert_allclose(result.effective_path_fraction, sum(count[low : high + 1]) / 64)
    interval = result.gradient_share_interval
    assert (interval.sel(quantile=0.025) <= result.gradient_share + 1e-12).all()
    assert (interval.sel(quantile=0.975) >= result.gradient_share - 1e-12).all()


def test_the_exact_sums_by_hand():
    model = build()
    exact = rl.PathGradient(model).analyze(data(), **QUIET)
    result = rl.EffectivePath(model).analyze(exact)
    share = exact.sum_gradient_norm / exact.sum_gradient_norm.sum()
    np.testing.assert_allclose(result.sum_gradient_share, share)
    inside = slice(int(result.sum_effective_low), int(result.sum_effective_high))
    assert share.sel(path_length=inside).sum() >= 0.95
    assert "effective_low" not in result


def test_from_data_is_from_saved_datasets(tmp_path):
    model = build()
    both = rl.EffectivePath(model).analyze(data(), n_draws=5, seed=4, **QUIET)
    sampled = rl.PathGradient(model).analyze(data(), method="sample", n_draws=5, seed=4, **QUIET)
    exact = rl.PathGradient(model).analyze(data(), **QUIET)
    rl.save(xr.merge([sampled, exact], compat="identical"), tmp_path / "gradients.nc")
    saved = rl.EffectivePath(model).analyze(rl.open(tmp_path / "gradients.nc"), seed=4)
    xr.testing.assert_equal(both, saved)
    rl.save(both, tmp_path / "effective.nc")
    xr.testing.assert_identical(rl.open(tmp_path / "effective.nc"), both)
    only = rl.EffectivePath(model).analyze(data(), method="exact", **QUIET)
    assert "total_gradient" not in only


def test_draws_that_rtol_left_out_do_not_count():
    model = build()
    sampled = rl.PathGradient(model).analyze(data(), method="sample", n_draws=100, rtol=0.1, **QUIET)
    assert sampled.gradient_norm.isnull().any()
    result = rl.EffectivePath(model).analyze(sampled)
    np.testing.assert_allclose(result.mean_gradient_norm, sampled.mean_gradient_norm)


def test_the_bootstrap_covers_the_true_share():
    model = build()
    many = rl.PathGradient(model).analyze(data(2), method="sample", n_draws=1500, **QUIET)
    effective = rl.EffectivePath(model)
    truth = effective.analyze(many).gradient_share.sel(path_length=3)
    covered = []
    for start in range(0, 1500, 30):
        few = many.isel(draw=slice(start, start + 30))
        low, high = effective.analyze(few, n_bootstrap=200).gradient_share_interval.sel(path_length=3)
        covered.append(bool(low <= truth <= high))
    assert len(covered) == 50
    assert 0.84 <= np.mean(covered) <= 1.0


def test_attribute_is_restricted_to_the_effective_lengths():
    model, (x, targets) = build(), data()
    result = rl.EffectivePath(model).analyze((x, targets), n_draws=5, coverage=0.6, **QUIET)
    got = rl.EffectivePath(model).attribute(x, target=targets, effective=result)
    lengths = range(int(result.effective_low), int(result.effective_high) + 1)
    assert len(lengths) < 7
    torch.testing.assert_close(got, rl.PathGradient(model).attribute(x, target=targets, path_length=lengths))
    own = rl.PathGradient(model).analyze((x, targets), objective="score", **QUIET)
    range_ = rl.EffectivePath(model).analyze(own, coverage=0.6)
    expected = range(int(range_.sum_effective_low), int(range_.sum_effective_high) + 1)
    torch.testing.assert_close(
        rl.EffectivePath(model).attribute(x, target=targets, coverage=0.6),
        rl.PathGradient(model).attribute(x, target=targets, path_length=expected),
    )


def test_what_does_not_fit_is_refused():
    effective = rl.EffectivePath(build())
    with pytest.raises(ValueError, match="coverage"):
        effective.analyze(data(), coverage=0)
    with pytest.raises(ValueError, match="method"):
        effective.analyze(data(), method="fast")
    with pytest.raises(ValueError, match="all path lengths from 0 to 6"):
        effective.analyze(rl.PathGradient(build()).analyze(data(), max_path_length=3, **QUIET))
    with pytest.raises(ValueError, match="PathGradient"):
        effective.analyze(rl.Deletion(build()).analyze(data(), **QUIET))
    with pytest.raises(TypeError, match="one-shot"):
        effective.analyze(iter([data()]))


def test_a_range_that_was_measured_elsewhere_is_refused():
    effective, (x, targets) = rl.EffectivePath(build()), data()
    at_layer = effective.network.layers[3]
    elsewhere = effective.analyze((x, targets), method="exact", wrt=at_layer, **QUIET)
    assert effective.attribute(x, target=targets, effective=elsewhere, wrt=at_layer).shape[0] == len(x)
    with pytest.raises(ValueError, match="expected effective paths of 6 blocks, measured at 'input', got "):
        effective.attribute(x, target=targets, effective=elsewhere)
    with pytest.raises(ValueError, match=r"as EffectivePath\.analyze returns it"):
        effective.attribute(x, target=targets, effective=rl.PathGradient(build()).analyze((x, targets), **QUIET))


def test_small_gradients_have_a_range_and_none_has_none():
    model, (x, targets) = build(), data()
    effective = rl.EffectivePath(model)
    expected = effective.attribute(x, target=targets)
    with torch.no_grad():
        model.head.weight.mul_(1e-30)
    torch.testing.assert_close(1e30 * effective.attribute(x, target=targets), expected)
    with torch.no_grad():
        model.head.weight.zero_()
    with pytest.raises(ValueError, match="expected a gradient, got none"):
        effective.attribute(x, target=targets)


def test_the_result_is_of_the_network_that_was_measured():
    measured = rl.PathGradient(build()).analyze(data(), **QUIET)
    other = build()
    with torch.no_grad():
        next(other.parameters()).add_(1)
    result = rl.EffectivePath(other).analyze(measured)
    for name in ("model", "weights_sha256", "data", "device", "created", "wrt"):
        assert result.attrs[name] == measured.attrs[name]
    assert result.attrs["title"] == "Effective path lengths"
    assert "fingerprint" not in result.attrs


@pytest.mark.parametrize(
    ("wrong", "message"),
    [(np.inf, "expected finite gradient norms, got NaN or infinity"), (np.nan, "at least one path of each length")],
)
def test_norms_that_are_not_finite_are_refused(wrong, message):
    paths = rl.PathGradient(build()).analyze(data(), method="sample", n_draws=3, **QUIET)
    paths["gradient_norm"][{"path_length": 2}] = wrong
    with pytest.raises(ValueError, match=message):
        rl.EffectivePath(build()).analyze(paths)


def test_a_replicate_without_a_gradient_does_not_count():
    paths = rl.PathGradient(build()).analyze(data(), method="sample", n_draws=4, **QUIET)
    norms = np.zeros((7, 4))
    norms[2, 0] = 1
    result = rl.EffectivePath(build()).analyze(paths.assign(gradient_norm=paths.gradient_norm * 0 + norms))
    assert (int(result.effective_low), int(result.effective_high)) == (2, 2)
    assert result.effective_low_interval.values.tolist() == [2, 2]


def test_one_path_of_a_length_has_no_interval():
    result = rl.EffectivePath(build()).analyze(data(), method="sample", n_draws=1, **QUIET)
    intervals = [name for name in result.data_vars if name.endswith("_interval")]
    assert len(intervals) == 4
    assert result["quantile"].attrs["long_name"] == "quantile of the bootstrap replicates"
    assert all(result[name].isnull().all() for name in intervals)


def test_options_say_what_was_measured():
    paths = rl.PathGradient(build()).analyze(data(), method="sample", n_draws=2, seed=7, **QUIET)
    options = json.loads(rl.EffectivePath(build()).analyze(paths, seed=1).attrs["options"])
    assert (options["seed"], options["measured"]) == (1, json.loads(paths.attrs["options"]))
