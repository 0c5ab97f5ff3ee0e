"""The precision that convolutions and matrix products compute in, and how far its rounding moves a result."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from math import isfinite
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from resnet_lesion.network.kept import Kept

Autocast: TypeAlias = torch.dtype | Literal["tf32"] | None


# A block put together from its parts does what it does itself, perhaps in another order: a few rounding errors apart.
_ROUNDINGS = 16


@contextmanager
def precision(device: torch.device, autocast: Autocast) -> Iterator[None]:
    """Run convolutions and matrix products in this precision, and restore the global settings."""
    if autocast is None:
        yield
    elif isinstance(autocast, str):
        with _tf32():
            yield
    else:
        with _autocast(device.type, autocast):
            yield


class _OfThread(threading.local):
    """The autocasts that a thread has open, by the type of their device: torch keeps them by thread."""

    def __init__(self) -> None:
        self.autocasts: dict[str, list[Kept[tuple[Any, ...]]]] = {}


_of_thread = _OfThread()


@contextmanager
def _autocast(device_type: str, dtype: torch.dtype) -> Iterator[None]:
    """Do what ``torch.autocast`` does, which leaves it on where such contexts end in another order.

    Raises:
        RuntimeError: If another thread ends it while the one that began it goes on, where it stays on.
    """
    thread, kept = threading.current_thread(), Kept(_autocast_state(device_type))
    context = torch.autocast(device_type, dtype)
    context.__enter__()
    stack = _of_thread.autocasts.setdefault(device_type, [])
    stack.append(kept)
    try:
        yield
    finally:
        if thread is threading.current_thread():
            now = _autocast_state(device_type)
            context.__exit__(None, None, None)
            _set_autocast_state(device_type, *(kept.value if kept.released(stack) else now))
        elif thread.is_alive():
            raise RuntimeError(
                f"expected a context in another precision to end in the thread that began it, {thread.name!r}, where "
                f"it stays, not in {threading.current_thread().name!r}. End it there."
            )


def _autocast_state(device_type: str) -> tuple[Any, ...]:
    enabled = torch.is_autocast_enabled(device_type)
    return enabled, torch.get_autocast_dtype(device_type), torch.is_autocast_cache_enabled()


def _set_autocast_state(device_type: str, enabled: bool, dtype: torch.dtype, caches: bool) -> None:
    torch.set_autocast_enabled(device_type, enabled)
    torch.set_autocast_dtype(device_type, dtype)
    torch.set_autocast_cache_enabled(caches)


_tf32_flags: list[Kept[tuple[list[Any], list[Any]]]] = []


@contextmanager
def _tf32() -> Iterator[None]:
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    flags: list[Any] = [matmul, cudnn]
    # torch 2.9 and later have names for the same settings, which setting the flags back does not restore
    named: list[Any] = [matmul, cudnn.conv, cudnn.rnn] if hasattr(cudnn, "conv") else []
    kept = Kept(([flag.allow_tf32 for flag in flags], [part.fp32_precision for part in named]))
    _tf32_flags.append(kept)
    try:
        for flag in flags:
            flag.allow_tf32 = True
        yield
    finally:
        if kept.released(_tf32_flags):
            for flag, value in zip(flags, kept.value[0], strict=True):
                flag.allow_tf32 = value
            for part, name in zip(named, kept.value[1], strict=True):
                part.fp32_precision = name


def rounding_unit(autocast: Autocast, dtype: torch.dtype) -> float:
    """Return the distance from 1 to the next larger number in what is computed in: autocast's precision or the dtype.

    TensorFloat-32 has 10 bits after the binary point.
    """
    return 2.0**-10 if isinstance(autocast, str) else torch.finfo(autocast or dtype).eps


def relative_deviation(found: Tensor, expected: Tensor) -> float:
    """Return the largest difference between two tensors relative to the largest entry of the expected one.

    The difference itself where the expected one is zero throughout. Numbers that are not finite must be so in both, and
    the shapes the same, or the deviation is NaN.
    """
    if found.shape != expected.shape:
        return torch.nan
    difference, size = float((found - expected).abs().max()), float(expected.abs().max())
    if not isfinite(difference + size):  # so that finite tensors, nearly all of them, are looked at only once
        finite = expected.isfinite()
        if not torch.equal(finite, found.isfinite()):
            return torch.nan
        found, expected = found.where(finite, 0), expected.where(finite, 0)
        difference, size = float((found - expected).abs().max()), float(expected.abs().max())
    return difference / size if size else difference


def within_rounding(deviation: float, dtype: torch.dtype) -> bool:
    """Tell whether rounding explains a relative deviation; it does not explain NaN."""
    return deviation <= _ROUNDINGS * rounding_unit(None, dtype)


def network_tolerance(device: torch.device, dtype: torch.dtype) -> float:
    """Return how far rounding may move the outputs of a whole network, relative to the largest of them.

    Every layer passes on the rounding errors of those before it, so this is far more than a block's. In coarse types it
    cannot be as much, or nothing would ever be noticed.
    """
    autocast: Autocast = autocast_dtype(device)
    if autocast is None and device.type == "cuda" and dtype == torch.float32:
        autocast = "tf32"  # torch's default for convolutions
    unit = rounding_unit(autocast, dtype)
    return min(2.0**12 * unit, max(2.0**-11, min(16 * unit, 2.0**-4)))


def autocast_dtype(device: torch.device) -> torch.dtype | None:
    """Return the precision that a surrounding ``torch.autocast`` computes in on a device; None if there is none."""
    if device.type == "meta":  # where nothing is computed, and torch knows no autocast
        return None
    return torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else None
