"""A model comes out of an analysis exactly as it went in."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

_locks: WeakKeyDictionary[nn.Module, threading.RLock] = WeakKeyDictionary()


_all_locks = threading.Lock()


@contextmanager
def isolated(model: nn.Module) -> Iterator[None]:
    """Put the model into eval mode, then restore every module's training flag and the random states.

    An analysis replaces functions of the model, so another thread that wants to analyse the same one waits.
    """
    records = torch.is_grad_enabled()
    # what is made in inference mode can have no gradients, whatever is switched on later
    with (
        torch.inference_mode(False),
        torch.set_grad_enabled(records),
        _lock(model),
        preserved_flags(model),
        preserved_randomness(),
        preserved_buffers(model),
    ):
        model.eval()
        yield


@contextmanager
def preserved_buffers(model: nn.Module) -> Iterator[list[str]]:
    """Restore every module's buffers, also after an exception: some models count, or measure ranges, in eval mode.

    Yields:
        A list that holds the names of those that had changed once the context has ended.
    """
    before = {
        (name, module): {key: (buffer, None if buffer is None else buffer.clone()) for key, buffer in buffers.items()}
        for name, module in model.named_modules()
        if (buffers := module._buffers)
    }
    changed: list[str] = []
    try:
        yield changed
    finally:
        for name, module in model.named_modules():
            kept = before.get((name, module), {})
            for key in [key for key in module._buffers if key not in kept]:
                del module._buffers[key]
                changed.append(f"{name}.{key}")
            for key, (buffer, values) in kept.items():
                is_same = module._buffers.get(key) is buffer
                module._buffers[key] = buffer
                if buffer is not None and values is not None and not _equal(buffer, values):
                    is_same = False
                    if buffer.shape == values.shape:
                        buffer.data.copy_(values)
                    else:
                        buffer.data = values
                if not is_same:
                    changed.append(f"{name}.{key}")


def _equal(a: Tensor, b: Tensor) -> bool:
    """Compare two tensors by their values, NaN being equal to itself; on the meta device there are none."""
    if a.device.type == "meta" or torch.equal(a, b):
        return True
    return a.shape == b.shape and bool(((a == b) | (a.isnan() & b.isnan())).all())


def _lock(model: nn.Module) -> threading.RLock:
    with _all_locks:
        return _locks.setdefault(model, threading.RLock())


@contextmanager
def preserved_flags(model: nn.Module) -> Iterator[None]:
    """Restore every module's own training flag, also after an exception."""
    training = {module: module.training for module in model.modules()}
    try:
        yield
    finally:
        for module, flag in training.items():
            module.training = flag


@contextmanager
def preserved_randomness() -> Iterator[None]:
    """Restore the random states, also after an exception.

    Iterating a DataLoader draws from the global generator and a data set's transforms may use any of the others, so
    all of them are restored.
    """
    torch_state, numpy_state, python_state = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
    cuda_states = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    try:
        yield
    finally:
        torch.set_rng_state(torch_state)
        np.random.set_state(numpy_state)  # noqa: NPY002
        random.setstate(python_state)
        if cuda_states:
            torch.cuda.set_rng_state_all(cuda_states)
