"""What was got where a batch ``(inputs, targets)`` was expected, and the line that makes one of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


def is_array(value: object) -> bool:
    """Tell whether a value is a tensor or another library's array."""
    return hasattr(value, "shape") and hasattr(value, "dtype")


def listed(values: Sequence[object], most: int = 6) -> str:
    """Join values as in a sentence."""
    shown = [str(value) for value in values[:most]]
    if len(values) > most:
        shown.append(f"{len(values) - most} more")
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def described(value: Any) -> str:
    """Name a value's type, and what it holds."""
    name = type(value).__name__
    if is_array(value):
        return f"{name} {_inside(value)}"
    entries = _entries(value)
    if not entries:
        return name
    keyed = [f"{key!r}: {_inside(part)}" if isinstance(value, Mapping) else _inside(part) for key, part in entries]
    return f"{name} with {listed(keyed)}"


def _inside(part: Any) -> str:
    if not is_array(part):
        return type(part).__name__
    return f"{str(part.dtype).removeprefix('torch.')} {tuple(part.shape)}"


def _entries(value: Any) -> list[tuple[Any, Any]]:
    """Return what a dict, tuple or list holds, with the keys to take it out by."""
    if isinstance(value, Mapping):
        return list(value.items())
    return list(enumerate(value)) if isinstance(value, tuple | list) else []


def how_to_take(name: str, value: Any) -> str:
    """Say how to take inputs and targets out of what is no pair of arrays: the largest array, and labels."""
    if is_array(value):
        return " The targets are missing: a batch is (inputs, targets)."
    arrays = [(key, part) for key, part in _entries(value) if is_array(part)]
    if not arrays:
        return ""
    inputs = max(arrays, key=lambda entry: len(entry[1].shape))[0]
    labels = [key for key, part in arrays if key != inputs and len(part.shape) == 1 and "int" in str(part.dtype)]
    others = labels or [key for key, _ in arrays if key != inputs]
    if not others:
        return " Both must be tensors."
    taken = f"({name}[{inputs!r}], {name}[{others[0]!r}])"
    if name == "data":
        return f" Pass {taken}."
    return f" Pass [{taken} for {name} in data], or a loader whose collate_fn returns these two."


def about_inputs(inputs: Tensor) -> str:
    """Say how to make floating-point inputs of others."""
    if inputs.dtype.is_complex or inputs.dtype.is_floating_point:
        return ""
    return (
        " Apply the model's own transform, for instance timm.data.create_transform; if the model itself takes whole "
        "numbers, pass inputs.float()."
    )


def about_labels(targets: Tensor) -> str:
    """Say how to make a class of each label, as far as their values tell."""
    if targets.ndim > 2 or targets.is_complex():
        return " Each image needs one class."
    if targets.ndim == 0:
        return " One image, too, needs a batch: (inputs[None], targets[None])."
    whole = bool((targets == targets.long()).all())
    if targets.ndim == 1 or targets.shape[1] == 1:
        if not whole:
            return " Only classifiers can be analysed, and these are no classes."
        column = "" if targets.ndim == 1 else "[:, 0]"
        integer = not targets.is_floating_point() and targets.dtype != torch.bool
        return f" Pass targets{column}{'' if integer else '.long()'}."
    if not whole:
        return " Pass targets.argmax(1), the likeliest class of each image."
    if bool(((targets != 0).sum(1) == 1).all()):
        return f" Pass targets{'.int()' * (targets.dtype == torch.bool)}.argmax(1)."
    return " Each image needs one class: with several labels, or none, it is neither right nor wrong."


def about_one(inputs: Tensor, targets: Tensor) -> str:
    """Say how to make a batch of an image that is given with its label."""
    return " One image, too, needs a batch: (inputs[None], targets)." if inputs.ndim == 3 and len(targets) == 1 else ""
