"""How much memory may be taken, and how many gradients it holds."""

from types import SimpleNamespace

import pytest
import torch
from helpers import models

import resnet_lesion as rl
from resnet_lesion.engines.memory import gradient_capacity, memory_budget


@pytest.fixture
def on_an_accelerator(monkeypatch):
    """Stand in for a network on a GPU of which 100 bytes are free and 30 more are kept by torch, 10 of them in use."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _device: (100, 1000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _device: 30)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _device: 10)
    return SimpleNamespace(device=torch.device("cuda"))


def test_on_a_cpu_the_budget_is_what_the_caller_says():
    assert memory_budget(rl.wrap(models.build()), 12345) == 12345


def test_on_an_accelerator_it_is_half_of_what_is_free(on_an_accelerator):
    assert memory_budget(on_an_accelerator, 12345) == (100 + 30 - 10) // 2


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_capacity_follows_from_the_widest_block(dtype):
    network = rl.wrap(models.build(dtype=dtype))
    trace = network.trace(models.images(1, dtype=dtype))
    widest = max(torch.Size(shape).numel() for shape in (*trace.input_shapes, *trace.output_shapes))
    of_one = 4 * widest * max(4, dtype.itemsize)  # carried in float32 at least
    found = [gradient_capacity(network, trace, limit) for limit in (1, of_one, 2 * of_one - 1, 2 * of_one, 7 * of_one)]
    assert found == [1, 1, 1, 2, 7]
    assert gradient_capacity(network, trace, None) > 7


def test_a_limit_that_is_none_is_refused():
    network = rl.wrap(models.build())
    with pytest.raises(ValueError, match="expected memory_limit in bytes, at least 1, or None, got 0"):
        gradient_capacity(network, network.trace(models.images(1)), 0)
