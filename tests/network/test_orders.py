from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from scipy.stats import chisquare

from resnet_lesion.network.orders import as_orders, delete_each, delete_random, swap_random, whole

PAIRS = [(0, 1), (0, 2), (1, 2), (4, 5)]


def test_each_block_is_deleted_once():
    assert delete_each(3).tolist() == [[-1, 1, 2], [0, -1, 2], [0, 1, -1]]
    assert whole(3).tolist() == [0, 1, 2]


@pytest.mark.parametrize("n_deleted", [0, 1, 3, 6])
def test_a_random_subset_has_the_size_asked_for(n_deleted):
    row = delete_random(6, n_deleted, seed=0, draw=0)
    assert (row == -1).sum() == n_deleted
    kept = np.flatnonzero(row >= 0)
    assert row[kept].tolist() == kept.tolist()


def test_random_subsets_are_uniform():
    n_draws = 3000
    drawn = Counter(tuple(np.flatnonzero(delete_random(5, 2, seed=3, draw=draw) == -1)) for draw in range(n_draws))
    assert set(drawn) == set(combinations(range(5), 2))
    assert chisquare([*drawn.values()]).pvalue > 1e-3


def test_random_swaps_are_uniform():
    n_draws = 3000
    drawn = Counter(tuple(swap_random(PAIRS, 6, 1, seed=3, draw=draw)) for draw in range(n_draws))
    assert set(drawn) == {(1, 0, 2, 3, 4, 5), (2, 1, 0, 3, 4, 5), (0, 2, 1, 3, 4, 5), (0, 1, 2, 3, 5, 4)}
    assert chisquare([*drawn.values()]).pvalue > 1e-3


@pytest.mark.parametrize("n_swaps", range(6))
def test_swaps_follow_one_another(n_swaps):
    row = swap_random(PAIRS, 6, n_swaps, seed=0, draw=1)
    assert sorted(row.tolist()) == [0, 1, 2, 3, 4, 5]
    assert row[3] == 3
    assert set(row[:3].tolist()) == {0, 1, 2}
    # each swap changes the parity of the permutation
    inversions = sum(a > b for a, b in combinations(row.tolist(), 2))
    assert inversions % 2 == n_swaps % 2


@pytest.mark.parametrize(
    "draw_row",
    [
        lambda **at: delete_random(20, at.pop("n"), **at),
        lambda **at: swap_random([*combinations(range(20), 2)], 20, at.pop("n"), **at),
    ],
    ids=["deletions", "swaps"],
)
def test_a_draw_depends_on_its_seed_and_coordinates_alone(draw_row):
    np.random.seed(0)  # noqa: NPY002
    first = draw_row(n=5, seed=1, draw=7)
    np.random.seed(1)  # noqa: NPY002
    draw_row(n=5, seed=1, draw=6)
    assert draw_row(n=5, seed=1, draw=7).tolist() == first.tolist()
    others = [draw_row(n=5, seed=2, draw=7), draw_row(n=5, seed=1, draw=8), draw_row(n=6, seed=1, draw=7)]
    assert all(other.tolist() != first.tolist() for other in others)


def test_draws_of_a_release_stay_those_of_the_next():
    def generator(*coordinates):
        return np.random.default_rng(np.random.SeedSequence(11, spawn_key=coordinates))

    deleted = np.flatnonzero(delete_random(9, 3, seed=11, draw=4) == -1)
    assert deleted.tolist() == sorted(generator(3, 4).choice(9, 3, replace=False).tolist())
    a, b = PAIRS[generator(1, 4).integers(len(PAIRS))]
    assert np.flatnonzero(swap_random(PAIRS, 6, 1, seed=11, draw=4) != whole(6)).tolist() == [a, b]


def test_rows_are_copied():
    given = np.array([[0, -1, 2]], dtype=np.int32)
    rows = as_orders(given, 3)
    assert rows.dtype == np.int64
    rows[:] = 0
    assert given.tolist() == [[0, -1, 2]]
