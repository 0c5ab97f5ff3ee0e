import numpy as np
import pytest
from scipy.stats import binom, ttest_ind
from scipy.stats import t as student

from resnet_lesion.paper.comparison import compare


def trainings(errors, n=200, seed=0):
    random = np.random.default_rng(seed)
    return [random.random(n) >= error for error in errors]


def test_mcnemar_is_a_coin_thrown_for_each_disagreement():
    a, b = trainings([0.1, 0.2, 0.1]), trainings([0.3, 0.2, 0.1], seed=1)
    result = compare(a, b)
    for i, (first, second) in enumerate(zip(a, b, strict=True)):
        only = [sum(x and not y for x, y in zip(first, second, strict=True)), 0]
        only[1] = sum(y and not x for x, y in zip(first, second, strict=True))
        n = sum(only)
        as_likely = [k for k in range(n + 1) if binom.pmf(k, n, 0.5) <= binom.pmf(only[0], n, 0.5) * (1 + 1e-9)]
        assert float(result.mcnemar_p_value[i]) == pytest.approx(sum(binom.pmf(k, n, 0.5) for k in as_likely))
        assert [int(result.only_first_right[i]), int(result.only_second_right[i])] == only


def test_errors_and_their_difference():
    a, b = trainings([0.1, 0.12, 0.14]), trainings([0.2, 0.25, 0.3], seed=1)
    result = compare(a, b, ("plain", "other"))
    errors = np.array([[1 - right.mean() for right in group] for group in (a, b)])
    np.testing.assert_allclose(result.error, errors)
    assert result.network.values.tolist() == ["plain", "other"]
    test = ttest_ind(errors[1], errors[0], equal_var=False)
    interval = test.confidence_interval(0.95)
    assert float(result.welch_p_value) == pytest.approx(test.pvalue)
    assert float(result.difference_low) == pytest.approx(interval.low)
    assert float(result.difference_high) == pytest.approx(interval.high)
    assert ((result.error_low < result.error) & (result.error < result.error_high)).all()


def test_one_training_of_each_has_no_spread():
    result = compare(trainings([0.1]), trainings([0.2], seed=1))
    assert np.isnan(result.welch_p_value)
    assert np.isnan(result.difference_low)
    assert 0 < result.mcnemar_p_value[0] < 1


def test_equal_trainings():
    a = trainings([0.1]) * 2
    result = compare(a, a)
    assert result.mcnemar_p_value.values.tolist() == [1.0, 1.0]
    assert float(result.welch_p_value) == 1.0
    assert float(result.difference) == 0.0


def test_trainings_of_one_network_may_err_equally_often():
    # 1 - 140 / 200, three times, has a mean that differs from it in the last digit
    a, b = trainings([0.3]) * 3, trainings([0.1, 0.2, 0.3], seed=1)
    errors = np.array([[1 - right.mean() for right in group] for group in (a, b)])
    spread = (errors[1].var(ddof=1) / 3) ** 0.5  # of one network only: Student's t with two degrees of freedom
    statistic = (errors[1].mean() - errors[0, 0]) / spread
    result = compare(a, b)
    assert float(result.welch_p_value) == pytest.approx(2 * student.sf(abs(statistic), 2))
    assert float(result.difference_high - result.difference) == pytest.approx(student.ppf(0.975, 2) * spread)


@pytest.mark.parametrize(("a", "b"), [([], []), ([0.1], [0.1, 0.2])])
def test_what_does_not_match_is_refused(a, b):
    with pytest.raises(ValueError, match="expected equally many trainings of both networks"):
        compare(trainings(a), trainings(b))
    with pytest.raises(ValueError, match="on the same images"):
        compare(trainings([0.1]), trainings([0.1], n=3))
