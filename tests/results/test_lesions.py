import numpy as np
import pytest
import xarray as xr
from scipy.stats import binomtest

from resnet_lesion.results.lesions import Counts, lesion_dataset, lesion_rates, order_variable

N_DELETED, DRAWS = [1, 3], range(3)
RNG = np.random.default_rng(0)
# the whole network, then two numbers of deleted blocks with three draws each; three classes of 4, 5 and 1 images
TOTAL_BY_CLASS = np.array([4, 5, 1])
CORRECT_BY_CLASS = np.stack([RNG.integers(0, most + 1, 7) for most in TOTAL_BY_CLASS], axis=1)
AGREEING = np.array([10, 4, 9, 0, 10, 7, 1])
LOSS = RNG.random(7)


def counts(evaluated=None):
    rows = np.tile(np.arange(4), (7, 1))
    return Counts(rows, evaluated, CORRECT_BY_CLASS, AGREEING, LOSS, TOTAL_BY_CLASS, 11, 28)


def laid_out(by_class=False, evaluated=None):
    coords = {"n_deleted": N_DELETED, "draw": DRAWS}
    return lesion_dataset(counts(evaluated), coords, by_class=by_class)


def test_counts_stand_where_a_loop_puts_them():
    found = laid_out(by_class=True)
    row = 0
    for n in N_DELETED:
        for draw in DRAWS:
            row += 1
            one = found.sel(n_deleted=n, draw=draw)
            correct = sum(int(CORRECT_BY_CLASS[row, k]) for k in range(3))
            assert one.correct == correct
            assert one.correct_by_class.values.tolist() == CORRECT_BY_CLASS[row].tolist()
            assert one.agreeing == AGREEING[row]
            assert one.loss == LOSS[row]
            assert one.error == pytest.approx(1 - correct / 10)
            assert one.agreement == AGREEING[row] / 10
            interval = binomtest(10 - correct, 10).proportion_ci(method="wilson")
            np.testing.assert_allclose((one.error_low, one.error_high), (interval.low, interval.high), atol=1e-12)
    assert found.baseline_correct == CORRECT_BY_CLASS[0].sum()
    assert found.baseline_error == pytest.approx(1 - CORRECT_BY_CLASS[0].sum() / 10)
    assert found.baseline_loss == LOSS[0]
    assert found.total == 10
    assert found.total_by_class.values.tolist() == [4, 5, 1]
    assert found.attrs == {"block_evaluations": 11, "naive_block_evaluations": 28, "n_classes": 3}


def test_classes_only_on_request():
    assert not {"correct_by_class", "total_by_class", "class"} & set(laid_out().variables)


def test_counts_and_means_say_what_they_are_over_the_images_and_what_follows_does_not():
    found = laid_out(by_class=True)
    methods = {name: array.attrs.get("cell_methods") for name, array in found.data_vars.items()}
    sums = ("correct", "agreeing", "baseline_correct", "total", "correct_by_class", "total_by_class")
    assert {name for name, method in methods.items() if method == "sample: sum"} == set(sums)
    assert {name for name, method in methods.items() if method == "sample: mean"} == {"loss", "baseline_loss"}
    follows = {name for name, method in methods.items() if method is None}
    assert follows == {"agreement", "error", "error_low", "error_high", "baseline_error"}


def test_lesions_of_another_shard_are_not_known():
    evaluated = np.array([True, True, False, True, False, False, True])
    found = laid_out(evaluated=evaluated)
    assert found.evaluated.values.ravel().tolist() == evaluated[1:].tolist()
    for name in ("loss", "error", "error_low", "error_high", "agreement"):
        assert found[name].notnull().values.ravel().tolist() == evaluated[1:].tolist(), name
    assert found.baseline_error == pytest.approx(1 - CORRECT_BY_CLASS[0].sum() / 10)
    assert found.correct.dtype.kind == "i"


def test_rates_follow_anew_from_counts_alone():
    found = laid_out()
    bare = found.drop_vars(["agreement", "error", "error_low", "error_high", "baseline_error"])
    xr.testing.assert_identical(lesion_rates(bare), found)
    double = bare.assign({name: 2 * bare[name] for name in ("correct", "agreeing", "baseline_correct", "total")})
    np.testing.assert_allclose(lesion_rates(double).error, found.error)
    assert (lesion_rates(double).error_low > found.error_low).sum() == (found.error > 0).sum()


def test_orders_are_over_position():
    made = order_variable(("n_swaps", "draw"), np.zeros((2, 3, 4), dtype=int))
    assert made.dims == ("n_swaps", "draw", "position")
