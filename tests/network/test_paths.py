from fractions import Fraction
from itertools import product
from math import comb

import numpy as np
import pytest
from scipy.stats import binom, hypergeom

import resnet_lesion as rl


def enumerated(n, deleted=()):
    """Count the paths of each length by going through all of them, without those through a deleted block."""
    counts = [0] * (n + 1)
    for path in product((0, 1), repeat=n):
        if not any(path[i] for i in deleted):
            counts[sum(path)] += 1
    return counts


@pytest.mark.parametrize("n", range(11))
def test_counts_equal_enumeration(n):
    assert rl.path_counts(n).values.tolist() == enumerated(n)
    assert rl.path_fraction(n).values.tolist() == [count / 2**n for count in enumerated(n)]


@pytest.mark.parametrize("deleted", [(), (3,), (0, 7), (1, 2, 3, 4, 5), tuple(range(8))])
def test_what_remains_equals_enumeration(deleted):
    expected = [a / b for a, b in zip(enumerated(8, deleted), enumerated(8), strict=True)]
    assert rl.remaining_fraction(8, len(deleted)).values.tolist() == expected


@pytest.mark.parametrize("n", [54, 110, 600])
def test_counts_are_correctly_rounded(n):
    assert rl.path_counts(n).values.tolist() == [float(comb(n, k)) for k in range(n + 1)]


@pytest.mark.parametrize("n", [54, 110, 600, 2000])
def test_fractions_are_correctly_rounded(n):
    found = rl.path_fraction(n)
    assert found.values.tolist() == [float(Fraction(comb(n, k), 2**n)) for k in range(n + 1)]
    assert float(found.sum()) == pytest.approx(1, abs=1e-12)
    np.testing.assert_allclose(found, binom.pmf(np.arange(n + 1), n, 0.5), rtol=1e-9, atol=1e-300)


@pytest.mark.parametrize(("n", "d"), [(54, 10), (600, 1), (600, 300), (600, 599), (600, 600)])
def test_what_remains_is_correctly_rounded(n, d):
    found = rl.remaining_fraction(n, d)
    assert found.values.tolist() == [float(Fraction(comb(n - d, k), comb(n, k))) for k in range(n + 1)]
    # the k blocks of a path all happen not to be among the d that are deleted
    expected = [hypergeom.pmf(0, n, d, k) for k in range(0, n + 1, 7)]
    np.testing.assert_allclose(found[::7], expected, rtol=1e-7, atol=1e-300)


def test_the_papers_numbers():
    share = rl.path_fraction(54)
    assert round(100 * float(share.sel(path_length=slice(19, 35)).sum()), 2) == 98.02
    assert round(100 * float(share.sel(path_length=slice(5, 17)).sum()), 4) == 0.4537
    assert int(share.idxmax()) == 27
    remaining = rl.remaining_fraction(54, 10).sel(path_length=[5, 11, 17])
    assert [f"{100 * float(r):.2g}" for r in remaining] == ["34", "8", "1.5"]


def test_several_numbers_of_deleted_blocks():
    found = rl.remaining_fraction(6, range(1, 4))
    assert found.dims == ("n_deleted", "path_length")
    assert found.n_deleted.values.tolist() == [1, 2, 3]
    for d in (1, 2, 3):
        np.testing.assert_array_equal(found.sel(n_deleted=d), rl.remaining_fraction(6, d))
    assert rl.remaining_fraction(6, [2]).shape == (1, 7)
    assert rl.remaining_fraction(6, np.int64(2)).shape == (7,)


@pytest.mark.parametrize("array", [rl.path_counts(3), rl.path_fraction(3), rl.remaining_fraction(3, [1])])
def test_arrays_say_what_they_are(array):
    assert array.path_length.values.tolist() == [0, 1, 2, 3]
    assert array.attrs["long_name"]
    assert array.attrs["units"] == "1"


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: rl.path_counts(-1), ValueError, "number of blocks >= 0, got -1"),
        (lambda: rl.path_fraction(-1), ValueError, "number of blocks >= 0, got -1"),
        (lambda: rl.remaining_fraction(-1, 0), ValueError, "number of blocks >= 0, got -1"),
        (lambda: rl.remaining_fraction(5, 6), ValueError, r"n_deleted .* from 0 to 5, got \[6\]"),
        (lambda: rl.remaining_fraction(5, -1), ValueError, r"n_deleted .* from 0 to 5, got \[-1\]"),
        (lambda: rl.remaining_fraction(5, [1, 1]), ValueError, r"different counts from 0 to 5, got \[1, 1\]"),
        (lambda: rl.remaining_fraction(5, []), ValueError, r"different counts from 0 to 5, got \[\]"),
        (lambda: rl.remaining_fraction(5, 1.5), TypeError, "n_deleted to be an integer or several, got 1.5"),
        (lambda: rl.path_counts(1100), OverflowError, "too large"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()
