import numpy as np
import pytest
from scipy.stats import binomtest

from resnet_lesion.results.statistics import wilson_interval


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
