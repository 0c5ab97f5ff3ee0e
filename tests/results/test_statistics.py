import numpy as np
import pytest
from scipy.stats import binomtest

from resnet_lesion.results.statistics import standard_error, wilson_interval


@pytest.mark.parametrize("coverage", [0.5, 0.95, 0.999])
@pytest.mark.parametrize("total", [1, 2, 17, 540, 50_000])
def test_equals_scipys(total, coverage):
    successes = np.unique(np.linspace(0, total, 20).astype(int))
    low, high = wilson_interval(successes, total, coverage)
    expected = [binomtest(k, total).proportion_ci(coverage, method="wilson") for k in successes.tolist()]
    np.testing.assert_allclose(low, [interval.low for interval in expected], rtol=1e-9, atol=1e-15)
    np.testing.assert_allclose(high, [interval.high for interval in expected], rtol=1e-9, atol=1e-15)


def test_contains_the_share():
    successes, total = np.arange(541), 540
    low, high = wilson_interval(successes, total)
    assert (low <= successes / total).all()
    assert (successes / total <= high).all()
    assert (low[0], high[-1]) == (0, 1)


def test_elementwise():
    low, high = wilson_interval([[1, 2], [3, 4]], [[5, 5], [5, 10]])
    assert low.shape == high.shape == (2, 2)
    assert low[1, 1] == wilson_interval(4, 10)[0]


def test_the_standard_error_is_that_of_a_loop():
    values = [0.5, 2.0, 3.5, 7.0]
    mean = sum(values) / 4
    variance = sum((value - mean) ** 2 for value in values) / 3
    assert standard_error(np.array(values)) == pytest.approx((variance / 4) ** 0.5)
    assert standard_error(np.full(3, 2.0)) == 0
    assert np.isnan(standard_error(np.array([2.0])))
    assert np.isnan(standard_error(np.array([])))
