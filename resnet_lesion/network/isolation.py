"""A model comes out of an analysis exactly as it went in, and no two threads change it at the same time."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from resnet_lesion.network.kept import Kept

_flags: WeakKeyDictionary[nn.Module, list[Kept[bool]]] = WeakKeyDictionary()


Buffers: TypeAlias = dict[str, tuple[Tensor | None, Tensor | None]]
"""A module's buffers by name, and copies of them."""


_buffers: WeakKeyDictionary[nn.Module, list[Kept[Buffers]]] = WeakKeyDictionary()


_random_states: list[Kept[tuple[Any, ...]]] = []


@contextmanager
def isolated(model: nn.Module) -> Iterator[None]:
    """Put the model into eval mode, then restore every module's training flag and the random states.

    An analysis replaces functions of the model, so it is :func:`reserved`. All threads draw from the same generators,
    so the random states are restored in the main thread only: a thread in the background would make the main thread
    draw the same numbers again. What the data draw there counts, as it does in a plain loop over them.
    """
    records = torch.is_grad_enabled()
    in_main_thread = threading.current_thread() is threading.main_thread()
    # what is made in inference mode can have no gradients, whatever is switched on later
    with (
        torch.inference_mode(False),
        torch.set_grad_enabled(records),
        reserved(model, ends_by_itself=True),
        preserved_flags(model),
        preserved_randomness() if in_main_thread else nullcontext(),
        preserved_buffers(model),
    ):
        model.eval()
        yield


@contextmanager
def preserved_buffers(model: nn.Module) -> Iterator[list[nn.Module]]:
    """Restore every module's buffers, also after an exception: some models count, or measure ranges, in eval mode.

    Yields:
        A list that holds the modules whose buffers had changed once the context has ended.
    """
    kept = {module: Kept(_buffers_of(module)) for module in model.modules()}
    changed: list[nn.Module] = []
    for module, buffers in kept.items():
        _buffers.setdefault(module, []).append(buffers)
    try:
        yield changed
    finally:
        for module, buffers in kept.items():
            if buffers.released(_buffers[module]) and _restored(module, buffers.value):
                changed.append(module)


def _buffers_of(module: nn.Module) -> Buffers:
    return {name: (buffer, None if buffer is None else buffer.clone()) for name, buffer in module._buffers.items()}


def _restored(module: nn.Module, before: Buffers) -> bool:
    """Give a module the buffers that it had, with the values that they had; tell whether that changed anything."""
    changed = module._buffers.keys() != before.keys()
    for name in module._buffers.keys() - before.keys():
        del module._buffers[name]
    for name, (buffer, values) in before.items():
        changed |= module._buffers.get(name) is not buffer
        module._buffers[name] = buffer
        if buffer is not None and values is not None and not _equal(buffer, values):
            changed = True
            with torch.inference_mode(buffer.is_inference()):
                if buffer.shape == values.shape:
                    buffer.data.copy_(values)
                else:
                    buffer.data = values
    return changed


def _equal(a: Tensor, b: Tensor) -> bool:
    """Compare two tensors by their values, NaN being equal to itself; on the meta device there are none."""
    if a.device.type == "meta" or torch.equal(a, b):
        return True
    return a.shape == b.shape and bool(((a == b) | (a.isnan() & b.isnan())).all())


@contextmanager
def preserved_flags(model: nn.Module) -> Iterator[None]:
    """Restore every module's own training flag, also after an exception, in whichever order such contexts end."""
    kept = {module: Kept(module.training) for module in model.modules()}
    for module, flag in kept.items():
        _flags.setdefault(module, []).append(flag)
    try:
        yield
    finally:
        for module, flag in kept.items():
            if flag.released(_flags[module]):
                module.training = flag.value


@contextmanager
def preserved_randomness() -> Iterator[None]:
    """Restore the random states, also after an exception, in whichever order such contexts end.

    Iterating a DataLoader draws from the global generator and a data set's transforms may use any of the others, so
    all of them are restored.
    """
    kept = Kept(_random_state())
    _random_states.append(kept)
    try:
        yield
    finally:
        if kept.released(_random_states):
            _set_random_state(*kept.value)


def _random_state() -> tuple[Any, ...]:
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return torch.get_rng_state(), np.random.get_state(), random.getstate(), cuda  # noqa: NPY002


def _set_random_state(torch_state: Any, numpy_state: Any, python_state: Any, cuda_states: Any) -> None:
    torch.set_rng_state(torch_state)
    np.random.set_state(numpy_state)  # noqa: NPY002
    random.setstate(python_state)
    if cuda_states:
        torch.cuda.set_rng_state_all(cuda_states)


class _Reservation:
    """A context on some modules: whose it is, whether its end is only a matter of time, and whether it has come."""

    def __init__(self, ends_by_itself: bool) -> None:
        self.thread, self.ends_by_itself, self.is_open = threading.current_thread(), ends_by_itself, True


_reservations: WeakKeyDictionary[nn.Module, list[_Reservation]] = WeakKeyDictionary()


_waiting: dict[threading.Thread, threading.Thread] = {}  # who waits for whom


_changed = threading.Condition()


@contextmanager
def reserved(model: nn.Module, *, ends_by_itself: bool) -> Iterator[None]:
    """Keep a model, and every other one that has a module of it, from what other threads would do to it.

    Contexts of one thread nest. An analysis of another thread ends by itself, so it is waited for. A context in
    somebody's own code may last until the very thread that would wait has finished, so it is not. Whichever thread
    ends a context, or the garbage collector, the model is free again.

    Args:
        model: The model.
        ends_by_itself: Whether this is an analysis, not a context around somebody's own code.

    Raises:
        RuntimeError: If another thread has such a context open on a part of the model, has ended without closing one,
            or waits for this thread.
    """
    mine = _Reservation(ends_by_itself)
    modules = [*model.modules()]
    try:
        with _changed:
            try:
                while (other := _of_another_thread(modules, mine)) is not None:
                    _refuse_to_wait(model, other, mine)
                    _waiting[mine.thread] = other.thread
                    # again after a while, as a thread may end without closing its context
                    _changed.wait(1)
            finally:
                _waiting.pop(mine.thread, None)
            for module in modules:
                _reservations.setdefault(module, []).append(mine)
        yield
    finally:
        # the garbage collector may do this in the middle of whatever is done with the lists, so what counts is the flag
        with _changed:
            mine.is_open = False
            for waiting, whom in [*_waiting.items()]:
                if whom is mine.thread:  # it looks again
                    del _waiting[waiting]
            for module in modules:
                _reservations[module] = [other for other in _reservations.get(module, ()) if other.is_open]
            _changed.notify_all()


def _of_another_thread(modules: list[nn.Module], mine: _Reservation) -> _Reservation | None:
    """Return who keeps one of the modules from this thread, those first whom it does not wait for."""
    found = {other for module in modules for other in _reservations.get(module, ())}
    others = [other for other in found if other.is_open and other.thread is not mine.thread]
    return min(others, key=lambda other: other.ends_by_itself, default=None)


def _refuse_to_wait(model: nn.Module, other: _Reservation, mine: _Reservation) -> None:
    expected = f"expected {type(model).__name__} as it is, or a part of it that no other thread works on, but thread"
    name = repr(other.thread.name)
    if not other.ends_by_itself:
        raise RuntimeError(
            f"{expected} {name} has a context (lesioned, routed) open on it. End that context first, or work on a "
            "copy of the model made before it."
        )
    if not other.thread.is_alive():
        raise RuntimeError(f"{expected} {name} has ended in the middle of an analysis of it. Close what it left open.")
    thread = other.thread
    while thread in _waiting:
        thread = _waiting[thread]
        if thread is mine.thread:
            raise RuntimeError(
                f"{expected} {name} analyses it and waits for a model that this thread keeps: neither could go on. "
                "Let both threads take the models in the same order."
            )
