from types import SimpleNamespace

import pytest
import torch
from helpers import models

import resnet_lesion as rl
from resnet_lesion.engines.memory import memory_budget


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
