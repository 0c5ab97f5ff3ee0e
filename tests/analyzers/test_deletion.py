import numpy as np
import pytest
from helpers import models, reference

import resnet_lesion as rl


def naive(model, rows, data):
    """Evaluate row by row."""
    rows = np.asarray(rows)
    scores = reference.logits(model, models.CASES["post-activation"], rows, data[0])
    return reference.counts(model, scores, *data)


def test_each_alone_equals_a_naive_loop():
    model, data = models.build(), models.data(20)
    found = rl.Deletion(model).analyze(data, by_class=True, show_progress=False)
    rows = [[*range(i), -1, *range(i + 1, 6)] for i in range(6)]
    expected = naive(model, rows, data)
    for name in ("correct", "agreement", "correct_by_class"):
        np.testing.assert_array_equal(found[name], expected[name])
    np.testing.assert_allclose(found.loss, expected["loss"], rtol=1e-12)
    assert found.layer.values.tolist() == reference.layers(model)
    assert found.stage.values.tolist() == [0, 0, 0, 1, 1, 1]
    assert found.is_downsampling.values.tolist() == [False, False, False, True, False, False]


def test_random_subsets_equal_a_naive_loop():
    model, data = models.build(), models.data(20)
    found = rl.Deletion(model).analyze(data, n_deleted=[1, 4, 6], n_draws=3, seed=5, show_progress=False)
    assert (found.deleted.sum("layer") == found.n_deleted).all()
    for point in found.stack(point=("n_deleted", "draw")).transpose("point", ...).point.values:
        at = dict(zip(("n_deleted", "draw"), point, strict=True))
        one = found.sel(at)
        expected = naive(model, [np.where(one.deleted, -1, np.arange(6))], data)
        assert int(one.correct) == expected["correct"][0]
        assert float(one.agreement) == expected["agreement"][0]


def test_a_draw_is_the_same_whatever_else_is_drawn():
    model, data = models.build(), models.data(6)

    def analyze(**options):
        return rl.Deletion(model).analyze(data, seed=1, show_progress=False, **options)

    many, few = analyze(n_deleted=range(1, 5), n_draws=20), analyze(n_deleted=[3], n_draws=10)
    at = {"n_deleted": 3, "draw": 7}
    for name in ("deleted", "correct", "agreement"):
        np.testing.assert_array_equal(many.sel(at)[name], few.sel(at)[name])
    other = rl.Deletion(model).analyze(data, n_deleted=[3], n_draws=10, seed=2, show_progress=False)
    assert not np.array_equal(other.deleted, few.deleted)


def test_every_point_can_be_run_again_from_what_is_stored():
    model, data = models.build(), models.data(12)
    found = rl.Deletion(model).analyze(data, n_deleted=[2, 3], n_draws=4, show_progress=False)
    rows = np.where(found.deleted, -1, np.arange(6)).reshape(-1, 6)
    again = rl.evaluate(model, data, rows, show_progress=False)
    np.testing.assert_array_equal(again.correct, found.correct.values.ravel())


def test_nothing_and_everything_deleted():
    model, data = models.build(), models.data(9)
    found = rl.Deletion(model).analyze(data, n_deleted=[0, 6], n_draws=1, show_progress=False)
    assert float(found.error.sel(n_deleted=0, draw=0)) == float(found.baseline_error)
    assert found.remaining_fraction.sel(n_deleted=0).values.tolist() == [1] * 7
    assert found.remaining_fraction.sel(n_deleted=6).values.tolist() == [1] + [0] * 6


def test_one_number_is_a_collection_of_one():
    found = rl.Deletion(models.build()).analyze(models.data(2), n_deleted=2, n_draws=3, show_progress=False)
    assert dict(found.correct.sizes) == {"n_deleted": 1, "draw": 3}


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"n_deleted": 7}, ValueError, r"expected n_deleted to be different counts from 0 to 6, got \[7\]"),
        ({"n_deleted": [2, 2]}, ValueError, r"expected n_deleted to be different counts from 0 to 6, got \[2, 2\]"),
        ({"n_deleted": []}, ValueError, r"expected n_deleted to be different counts from 0 to 6, got \[\]"),
        ({"n_deleted": [1.5]}, TypeError, r"expected n_deleted to be an integer or several, got \[1.5\]"),
        ({"n_deleted": 1, "n_draws": 0}, ValueError, "expected n_draws >= 1, got 0"),
        ({"n_deleted": 1, "n_draws": 2.0}, TypeError, "expected n_draws to be an integer, got 2.0"),
        ({"n_deleted": 1, "seed": -1}, ValueError, "expected seed >= 0, got -1"),
        ({"n_deleted": 1, "seed": None}, TypeError, "expected seed to be an integer, got None"),
        ({"n_deleted": 1, "seed": 1.0}, TypeError, "expected seed to be an integer, got 1.0"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        rl.Deletion(models.build()).analyze(models.data(2), show_progress=False, **options)
