import numpy as np
import pytest

from resnet_lesion.checks import as_count, as_counts, as_positive, did_you_mean


def test_counts():
    assert as_counts("n", 3, 0, 5) == [3]
    assert as_counts("n", np.int32(3), 0, 5) == [3]
    assert as_counts("n", np.array([3, 1]), 0, 5) == [3, 1]
    assert as_counts("n", range(2), 0, 5) == [0, 1]
    assert as_counts("n", (i for i in (0, 5)), 0, 5) == [0, 5]


@pytest.mark.parametrize("counts", [[], [1, 1], [-1], [6], 6, range(4, 8)])
def test_counts_out_of_bounds_are_refused(counts):
    with pytest.raises(ValueError, match="expected n_swaps to be different counts from 0 to 5, got"):
        as_counts("n_swaps", counts, 0, 5)


@pytest.mark.parametrize("counts", [1.0, [1.0], "12", None, [None], [[1]], np.array([1.5])])
def test_counts_that_are_not_integers_are_refused(counts):
    with pytest.raises(TypeError, match="expected n_swaps to be an integer or several, got"):
        as_counts("n_swaps", counts, 0, 5)


@pytest.mark.parametrize(("value", "error"), [(0, ValueError), (-3, ValueError), (1.0, TypeError), (None, TypeError)])
def test_numbers_of_repetitions(value, error):
    assert as_positive("n_draws", np.int64(3)) == 3
    with pytest.raises(error, match=f"expected n_draws .* got {value}"):
        as_positive("n_draws", value)


def test_one_count():
    assert as_count("n", np.int64(5), 0, 5) == 5
    with pytest.raises(TypeError, match=r"expected n to be an integer, got \[3\]"):
        as_count("n", [3], 0, 5)
    with pytest.raises(ValueError, match=r"from 0 to 5, got \[6\]"):
        as_count("n", 6, 0, 5)


def test_suggestions():
    assert did_you_mean("layer1.9", ["layer1.0", "stem"]) == " Did you mean 'layer1.0'?"
    assert did_you_mean("zzz", ["layer1.0"]) == ""
