"""What the analyzers take as data: one ``(inputs, targets)`` tuple, or any iterable of such batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

import torch
from torch import Tensor

Batch: TypeAlias = tuple[Tensor, Tensor]


Data: TypeAlias = Batch | Iterable[Any]
"""A tuple ``(inputs, targets)``, or an iterable of batches such as a DataLoader or timm's loader."""


IGNORE_INDEX = -100
"""The label of an image that is not to be counted, such as one that cannot be read; as torch's cross-entropy has it."""


_EXPECTED = "expected data as a tuple (inputs, targets) of tensors or an iterable of such batches"


def batches(data: Data) -> Iterator[Batch]:
    """Iterate over the data once, checking each batch.

    Yields:
        Inputs (N, ...), floating-point, and targets (N,), int64, on whatever device they were.

    Raises:
        TypeError: If the data or a batch is something else.
        ValueError: If there is no image at all, the lengths differ, or an input on the CPU is not finite.
    """
    if isinstance(data, Tensor | str | dict) or not isinstance(data, Iterable):
        hint = " Give it to a torch.utils.data.DataLoader." if isinstance(data, torch.utils.data.Dataset) else ""
        raise TypeError(f"{_EXPECTED}, got {type(data).__name__}.{hint}")
    empty = True
    for batch in [data] if is_one_batch(data) else data:
        inputs, targets = _checked(batch)
        if len(inputs):
            empty = False
            yield inputs, targets
    if empty:
        raise ValueError("expected at least one image, got empty data. A generator can be iterated over only once.")


def is_one_batch(data: Data) -> bool:
    """Tell whether the data is a tuple ``(inputs, targets)`` rather than an iterable of such batches."""
    return isinstance(data, tuple) and len(data) == 2 and all(map(_is_array, data))


def defects(inputs: Tensor, targets: Tensor, n_classes: int) -> Tensor:
    """Tell, without synchronising, whether (non-finite inputs, labels out of range) are among a batch; (2,) bool."""
    out_of_range = ((targets < 0) & (targets != IGNORE_INDEX) | (targets >= n_classes)).any()
    # the labels may be on another device than the images
    return torch.stack([~torch.isfinite(inputs).all(), out_of_range.to(inputs.device, non_blocking=True)])


def refuse_defects(found: Tensor, n_classes: int) -> None:
    """Raise for what :func:`defects` found.

    Raises:
        ValueError: If it found anything.
    """
    not_finite, out_of_range = found.tolist()
    if not_finite:
        raise ValueError("expected finite inputs, got NaN or infinity. Check the images and their normalisation.")
    if out_of_range:
        raise ValueError(
            f"expected labels from 0 to {n_classes - 1}, as the model has {n_classes} outputs, got labels outside. "
            "Does the data set number its classes as the model does, from 0 on?"
        )


def length(data: Data) -> int | None:
    """Return the number of images if it is known beforehand: of tensors, of a list of batches, and of a data set."""
    if is_one_batch(data):
        return len(data[0])  # type: ignore[index]
    if isinstance(data, list | tuple):
        try:
            return sum(len(batch[0]) for batch in data)
        except (TypeError, LookupError):  # what is no batch is refused when it is read
            return None
    dataset = getattr(data, "dataset", None)
    try:
        return len(dataset)  # type: ignore[arg-type]
    except TypeError:
        return None


def describe(data: Data, n_samples: int, shape: tuple[int, ...]) -> str:
    """Say in a line what was analysed, for the provenance attributes."""
    source = type(getattr(data, "dataset", data)).__name__.lstrip("_")
    return f"{n_samples} images of shape {'x'.join(map(str, shape))} from {source}"


def first_images(data: Data, n: int) -> list[Batch]:
    """Return batches with the first n images of the data.

    Raises:
        ValueError: If n is below 1.
    """
    if n < 1:
        raise ValueError(f"expected at least 1 image, got {n}.")
    taken: list[Batch] = []
    for inputs, targets in batches(data):
        taken.append((inputs[:n], targets[:n]))
        n -= len(inputs)
        if n <= 0:
            break
    return taken


def refuse_one_shot(data: Data) -> None:
    """Refuse an iterator, which could not be iterated over a second time.

    Raises:
        TypeError: If the data is an iterator.
    """
    if isinstance(data, Iterator):
        raise TypeError(
            f"{_EXPECTED} that can be iterated over several times, got the one-shot {type(data).__name__}. "
            "Pass the loader itself, or list(data)."
        )


def _is_array(value: object) -> bool:
    return hasattr(value, "shape") and hasattr(value, "dtype")


def _checked(batch: Any) -> Batch:
    if not isinstance(batch, tuple | list) or len(batch) != 2 or not all(map(_is_array, batch)):
        raise TypeError(f"{_EXPECTED}, got a batch of type {type(batch).__name__}.")
    inputs, targets = torch.as_tensor(batch[0]), torch.as_tensor(batch[1])
    if inputs.ndim < 2 or not inputs.is_floating_point():
        raise ValueError(
            f"expected floating-point inputs (N, channels, height, width), got {inputs.dtype} {tuple(inputs.shape)}. "
            "Apply the model's own transform, for instance timm.data.create_transform."
        )
    if targets.ndim != 1 or targets.is_floating_point() or targets.is_complex() or targets.dtype == torch.bool:
        raise ValueError(f"expected integer class labels (N,), got {targets.dtype} {tuple(targets.shape)}.")
    if len(inputs) != len(targets):
        raise ValueError(f"expected as many targets as inputs, got {len(inputs)} inputs and {len(targets)} targets.")
    return inputs, targets.long()
