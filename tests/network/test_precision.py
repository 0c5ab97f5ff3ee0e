import math
from concurrent.futures import ThreadPoolExecutor
from itertools import permutations

import pytest
import torch

from resnet_lesion.network.precision import (
    autocast_dtype,
    precision,
    relative_deviation,
    rounding_unit,
    within_rounding,
)


@pytest.mark.parametrize("fail", [False, True])
def test_tf32_is_given_back(fail):
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn

    def state():
        flags = matmul.allow_tf32, cudnn.allow_tf32, torch.get_float32_matmul_precision()
        named = [matmul, cudnn.conv, cudnn.rnn] if hasattr(cudnn, "conv") else []
        return [*flags, *(part.fp32_precision for part in named)]

    before = state()
    try:
        with precision(torch.device("cuda"), "tf32"):
            assert matmul.allow_tf32
            assert cudnn.allow_tf32
            if fail:
                raise KeyError
    except KeyError:
        assert fail
    assert state() == before


def tf32_state():
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    named = [matmul, cudnn.conv, cudnn.rnn] if hasattr(cudnn, "conv") else []
    return [matmul.allow_tf32, cudnn.allow_tf32, *(part.fp32_precision for part in named)]


def autocast_state():
    return torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu"), torch.is_autocast_cache_enabled()


@pytest.mark.parametrize(
    ("names", "state"),
    [(["tf32"] * 3, tf32_state), ([torch.bfloat16, torch.float16, torch.bfloat16], autocast_state)],
)
@pytest.mark.parametrize("order", [*permutations(range(3))])
def test_precisions_end_in_any_order(names, state, order):
    before, contexts, last = state(), [precision(torch.device("cpu"), name) for name in names], {}
    for i, context in enumerate(contexts):
        context.__enter__()
        last[i] = state()
    for i in order:
        contexts[i].__exit__(None, None, None)
        del last[i]
        assert state() == (last[max(last)] if last else before)


def test_what_users_set_around_a_precision_stays():
    with torch.autocast("cpu", torch.float16, cache_enabled=False):
        before = autocast_state()
        with precision(torch.device("cpu"), torch.bfloat16):
            assert autocast_state() == (True, torch.bfloat16, False)
        assert autocast_state() == before


def test_a_precision_ends_in_the_thread_that_began_it():
    before, context = autocast_state(), precision(torch.device("cpu"), torch.bfloat16)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(context.__enter__).result(60)
        with pytest.raises(RuntimeError, match="to end in the thread that began it"):
            context.__exit__(None, None, None)
        assert autocast_state() == before
        assert pool.submit(autocast_state).result(60)[0], "it stays on there"
    with ThreadPoolExecutor(1) as pool:
        context = precision(torch.device("cpu"), torch.bfloat16)
        pool.submit(context.__enter__).result(60)
    context.__exit__(None, None, None)  # that thread has ended, and its autocast with it
    assert autocast_state() == before


def gap_above_one(dtype):
    """Halve a number until adding it to 1 changes nothing."""
    gap, one = 1.0, torch.ones((), dtype=dtype)
    while (one + torch.tensor(gap / 2, dtype=dtype)) > 1:
        gap /= 2
    return gap


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_the_rounding_unit_is_the_gap_above_one(dtype):
    assert rounding_unit(None, dtype) == gap_above_one(dtype)
    assert rounding_unit(torch.bfloat16, dtype) == gap_above_one(torch.bfloat16)
    assert rounding_unit("tf32", dtype) == gap_above_one(torch.float16)  # which has as many bits behind the point


def test_the_relative_deviation_is_that_of_a_plain_loop():
    found, expected = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0)).double()
    differences = [abs(a - b) for a, b in zip(found.flatten().tolist(), expected.flatten().tolist(), strict=True)]
    largest = max(abs(b) for b in expected.flatten().tolist())
    assert relative_deviation(found, expected) == max(differences) / largest
    assert relative_deviation(expected, expected) == 0


def test_where_zero_is_expected_the_deviation_is_absolute():
    assert relative_deviation(torch.tensor([0.0, -0.25]), torch.zeros(2)) == 0.25


@pytest.mark.parametrize(("found", "expected"), [(torch.nan, 1.0), (1.0, torch.nan), (torch.nan, 0.0)])
def test_a_deviation_from_or_of_nan_is_nan(found, expected):
    deviation = relative_deviation(torch.tensor([1.0, found]), torch.tensor([expected, expected]))
    assert math.isnan(deviation)
    assert not within_rounding(deviation, torch.float32)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_sixteen_roundings_are_explained(dtype):
    limit = 16 * gap_above_one(dtype)
    assert within_rounding(0.0, dtype)
    assert within_rounding(limit, dtype)
    assert not within_rounding(math.nextafter(limit, 1), dtype)


def test_autocast_is_switched_on_inside():
    device, x = torch.device("cpu"), torch.ones(2, 2)
    with precision(device, torch.bfloat16):
        assert (x @ x).dtype == torch.bfloat16
    with precision(device, None):
        assert (x @ x).dtype == torch.float32


def test_the_surrounding_autocast_is_seen():
    cpu, meta = torch.device("cpu"), torch.device("meta")
    assert autocast_dtype(cpu) is None
    with torch.autocast("cpu", torch.bfloat16):
        assert autocast_dtype(cpu) == torch.bfloat16
        assert autocast_dtype(meta) is None
