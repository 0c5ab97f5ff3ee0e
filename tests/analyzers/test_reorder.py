import numpy as np
import pytest
from helpers import models, reference
from timm.models import resnet

import resnet_lesion as rl

# in the last network, the first block projects between two equal shapes
PROJECTIONS = {"resnet basic": [0, 3, 4, 7], "resnetv2 basic": [2, 5], "resnetv2 post-activation": [0, 2, 5]}


def analyze(model, data, **options):
    return rl.Reorder(model).analyze(data, show_progress=False, **options)


def test_random_orders_equal_a_naive_loop():
    model, data = models.build(), models.data(20)
    found = analyze(model, data, n_swaps=[0, 1, 5], n_draws=3, seed=2, by_class=True)
    rows = found.order.values.reshape(-1, 6)
    scores = reference.logits(model, models.CASES["post-activation"], rows, data[0])
    expected = reference.counts(model, scores, *data)
    for name in ("correct", "agreement"):
        np.testing.assert_array_equal(found[name].values.ravel(), expected[name])
    np.testing.assert_array_equal(found.correct_by_class.values.reshape(-1, 5), expected["correct_by_class"])
    np.testing.assert_allclose(found.loss.values.ravel(), expected["loss"], rtol=1e-12)
    assert (found.correct.sel(n_swaps=0) == found.baseline_correct).all()


def test_tau_is_the_share_of_pairs_in_order_less_the_rest():
    found = analyze(models.build(), models.data(1), n_swaps=range(6), n_draws=4)
    expected = [[reference.kendall_tau(row) for row in rows] for rows in found.order.values.tolist()]
    np.testing.assert_allclose(found.kendall_tau, expected, rtol=0, atol=1e-12)
    assert (found.kendall_tau.sel(n_swaps=0) == 1).all()
    assert len(np.unique(found.kendall_tau)) > 3


@pytest.mark.parametrize("name", PROJECTIONS)
def test_only_blocks_of_the_same_shapes_change_places(name):
    model, data = models.build(name), models.data(1, name)
    found = analyze(model, data, n_swaps=[1, 20], n_draws=30)
    kinds = reference.kinds(model, data[0])
    orders = found.order.values.reshape(-1, len(kinds))
    whole = np.arange(len(kinds))
    assert (np.sort(orders, axis=1) == whole).all()
    for row in orders:
        assert [kinds[index] for index in row] == kinds
    assert (orders[:, PROJECTIONS[name]] == PROJECTIONS[name]).all(), "projections stay where they are"
    alike = [i for i in whole if i not in PROJECTIONS[name] and sum(k == kinds[i] for k in kinds) > 1]
    moved = set(np.flatnonzero((orders != whole).any(axis=0)))
    partners = {i for i in alike if any(kinds[i] == kinds[j] and i != j for j in alike)}
    assert moved == partners, "every block that has a partner moves sometimes"


def test_a_draw_is_the_same_whatever_else_is_drawn():
    model, data = models.build(), models.data(2)
    many = analyze(model, data, n_swaps=range(1, 5), n_draws=20, seed=1)
    few = analyze(model, data, n_swaps=3, n_draws=10, seed=1)
    at = {"n_swaps": 3, "draw": 7}
    assert many.order.sel(at).values.tolist() == few.order.sel(at).values.tolist()
    assert not np.array_equal(analyze(model, data, n_swaps=3, n_draws=10, seed=2).order, few.order)


def test_a_network_whose_blocks_all_differ_is_refused():
    model = resnet.ResNet(resnet.BasicBlock, (1, 1, 1, 1), channels=(4, 8, 8, 8), num_classes=5, zero_init_last=False)
    model = model.double()
    with pytest.raises(
        ValueError, match=r"at least two blocks .* to swap, got none: the 4 blocks .* are all different"
    ):
        analyze(model, models.data(1, "resnet basic"), n_swaps=1)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"n_swaps": -1}, ValueError, r"expected n_swaps to be different counts from 0 to .*, got \[-1\]"),
        ({"n_swaps": [1, 1]}, ValueError, r"expected n_swaps to be different counts .*, got \[1, 1\]"),
        ({"n_swaps": 1.5}, TypeError, "expected n_swaps to be an integer or several, got 1.5"),
        ({"n_swaps": 1, "n_draws": 0}, ValueError, "expected n_draws >= 1, got 0"),
        ({"n_swaps": 1, "seed": "0"}, TypeError, "expected seed to be an integer, got '0'"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        analyze(models.build(), models.data(2), **options)
