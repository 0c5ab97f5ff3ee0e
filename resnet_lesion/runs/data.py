"""What the analyzers take as data: one ``(inputs, targets)`` tuple, or any iterable of such batches."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from resnet_lesion.runs.advice import about_inputs, about_labels, about_one, described, how_to_take, is_array, listed

Batch: TypeAlias = tuple[Tensor, Tensor]


Data: TypeAlias = Batch | Iterable[Any]
"""A tuple ``(inputs, targets)``, or an iterable of such batches: a DataLoader, timm's loader."""


IGNORE_INDEX = -100
"""The label of an image that is not to be counted, such as one that cannot be read; as torch's cross-entropy has it."""


_EXPECTED = "expected data as a tuple (inputs, targets) of tensors or an iterable of such batches"


def batches(data: Data) -> Iterator[Batch]:
    """Iterate over the data once, checking each batch.

    Yields:
        Inputs (N, ...), floating-point, and targets (N,), int64, on whatever device they were: plain tensors, whatever
        arrays the data holds. Batches without images, or None in their place, are passed over.

    Raises:
        TypeError: If the data or a batch is something else.
        ValueError: If there is no image at all, or the shapes or dtypes are others.
    """
    if isinstance(data, str | Mapping) or is_array(data) or not isinstance(data, Iterable):
        hint = how_to_take("data", data)
        if isinstance(data, torch.utils.data.Dataset):
            hint = " Give it to a torch.utils.data.DataLoader."
        raise TypeError(f"{_EXPECTED}, got {described(data)}.{hint}")
    if isinstance(data, tuple | list) and len(data) == 2 and is_array(data[0]) and not is_array(data[1]):
        hint = " Pass (inputs, torch.as_tensor(targets))." if isinstance(data[1], list) else ""
        raise TypeError(f"{_EXPECTED}, got {described(data)}.{hint}")
    empty = True
    for batch in [data] if is_one_batch(data) else data:
        if _holds_nothing(batch):
            continue
        inputs, targets = _checked(batch)
        if len(inputs):
            empty = False
            yield inputs, targets
    if empty:
        raise ValueError("expected at least one image, got empty data. A generator can be iterated over only once.")


def is_one_batch(data: Data) -> bool:
    """Tell whether the data is one batch ``(inputs, targets)``, also as a list, rather than an iterable of batches."""
    return isinstance(data, tuple | list) and len(data) == 2 and all(map(is_array, data))


def in_range(inputs: Tensor, dtype: torch.dtype) -> Tensor:
    """Tell of each number whether it is finite, and stays so in a dtype; of the inputs' shape, bool."""
    return inputs.abs() <= min(torch.finfo(inputs.dtype).max, torch.finfo(dtype).max)


def not_finite(dtype: torch.dtype, where: str = "") -> str:
    """Say that inputs are not all finite in the model's dtype."""
    return (
        f"expected finite inputs, got NaN or infinity, or more than the model's {dtype} can hold "
        f"({torch.finfo(dtype).max:.5g}){where}. Check the images and their normalisation."
    )


def defects(inputs: Tensor, targets: Tensor, n_classes: int, dtype: torch.dtype) -> Tensor:
    """Tell, without synchronising, what is wrong with a batch.

    Args:
        inputs: (N, ...) inputs.
        targets: (N,) labels.
        n_classes: Number of the model's outputs.
        dtype: The model's.

    Returns:
        (2,) bool, on the inputs' device: whether an input is not finite in the dtype, whether a label is out of range.
    """
    out_of_range = _out_of_range(targets, n_classes).any()
    # the labels may be on another device than the images
    return torch.stack([~in_range(inputs, dtype).all(), out_of_range.to(inputs.device, non_blocking=True)])


def refuse_defects(
    found: Tensor,
    n_classes: int,
    dtype: torch.dtype,
    batch: Batch | None = None,
    numbers: Sequence[int] = range(0),
) -> None:
    """Raise for what :func:`defects` found.

    Args:
        found: What it returned, or several of these combined.
        n_classes: As it was given.
        dtype: As it was given.
        batch: What it was given, to say more.
        numbers: The numbers of the batch's images in the data.

    Raises:
        ValueError: If it found anything.
    """
    beyond, outside = found.tolist()
    if beyond:
        where = "" if batch is None else _numbered(~in_range(batch[0], dtype).flatten(1).all(1), numbers)
        raise ValueError(not_finite(dtype, where))
    if outside:
        got = "others"
        if batch is not None:
            chosen = _out_of_range(batch[1], n_classes)
            got = f"{listed(batch[1][chosen].unique().tolist())}{_numbered(chosen, numbers)}"
        raise ValueError(
            f"expected labels from 0 to {n_classes - 1}, as the model has {n_classes} outputs, got {got}. Does the "
            "data set number its classes as the model does, from 0 on? An image that is not to be counted has the "
            f"label {IGNORE_INDEX}."
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


def _holds_nothing(batch: Any) -> bool:
    """Tell whether a ``collate_fn`` that drops broken items had none left: None, or as many empty parts as it likes."""
    if batch is None:
        return True
    return isinstance(batch, tuple | list) and all(hasattr(part, "__len__") and _size(part) == 0 for part in batch)


def _size(part: Any) -> int | None:
    shape = getattr(part, "shape", None)
    return len(part) if shape is None else shape[0] if shape else None


def _checked(batch: Any) -> Batch:
    if not isinstance(batch, tuple | list) or len(batch) != 2 or not all(map(is_array, batch)):
        raise TypeError(f"{_EXPECTED}, got a batch of type {described(batch)}.{how_to_take('batch', batch)}")
    inputs, targets = map(as_plain, batch)
    if inputs.ndim < 2 or not inputs.is_floating_point():
        raise ValueError(
            "expected floating-point inputs (N, channels, height, width), got "
            f"{inputs.dtype} {tuple(inputs.shape)}.{about_inputs(inputs)}"
        )
    if targets.ndim != 1 or targets.is_floating_point() or targets.is_complex() or targets.dtype == torch.bool:
        raise ValueError(
            f"expected integer class labels (N,), got {targets.dtype} {tuple(targets.shape)}.{about_labels(targets)}"
        )
    if len(inputs) != len(targets):
        raise ValueError(
            f"expected as many targets as inputs, got {len(inputs)} inputs and {len(targets)} targets."
            f"{about_one(inputs, targets)}"
        )
    return inputs, targets.long()


def as_plain(array: Any) -> Tensor:
    """Make a plain tensor of any array, without a copy where torch can do without.

    It may be a subclass of torch's, as fastai's and torchvision's are, which need not mix with each other, or NumPy's
    in any byte order and with any strides, or anything that NumPy takes, such as xarray's.

    Raises:
        TypeError: If it does not hold numbers.
    """
    if isinstance(array, Tensor):
        return array if type(array) is Tensor else array.as_subclass(Tensor)
    if hasattr(array, "__cuda_array_interface__"):
        return torch.as_tensor(array)
    values = np.asarray(array)
    if values.dtype.kind not in "biufc":
        raise TypeError(f"{_EXPECTED}, got an array of {values.dtype}, which are no numbers.")
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    if any(stride < 0 for stride in values.strides):
        values = np.ascontiguousarray(values)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # nobody writes into the data
        return torch.as_tensor(values)


def _out_of_range(targets: Tensor, n_classes: int) -> Tensor:
    return (targets < 0) & (targets != IGNORE_INDEX) | (targets >= n_classes)


def _numbered(chosen: Tensor, numbers: Sequence[int]) -> str:
    """Say which images of a batch are meant."""
    places = chosen.nonzero()[:, 0].tolist()
    return f" in image{'s' * (len(places) > 1)} number {listed([numbers[place] for place in places])}"
