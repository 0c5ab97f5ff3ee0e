"""Where a model's weights are used, of which type they are, and their values, wherever they are kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn


def execution_device(model: nn.Module) -> torch.device:
    """Return the device on which a model computes: that of its weights, or the one that they are brought to.

    Weights that are offloaded stand on the meta device, without values, until they are used.
    """
    device = torch.empty(0).device
    for tensor in _floating(model):
        if not tensor.is_meta:
            return tensor.device
        device = tensor.device
    executing = (getattr(hook, "execution_device", None) for module in model.modules() for hook in _hooks(module))
    return next((torch.device(where) for where in executing if where is not None), device)


def floating_dtype(model: nn.Module) -> torch.dtype:
    """Return the floating-point type of a model's weights, which its inputs are cast to.

    Raises:
        TypeError: If it has none, but weights of another type.
    """
    first = next(_floating(model), None)
    if first is not None:
        return first.dtype
    name, other = next(iter(model.named_parameters()), (None, None))
    if other is not None:
        raise TypeError(
            f"expected floating-point weights, whose type the images are cast to, got {other.dtype} ({name!r}) and no "
            "others. Say which type the model takes: model.register_buffer('images', torch.empty(0), persistent=False)."
        )
    return torch.get_default_dtype()


def offloaded_value(model: nn.Module, name: str) -> Tensor:
    """Return the value of a tensor that is on the meta device until it is used.

    Args:
        model: The model.
        name: The tensor's name in its state dict.

    Raises:
        TypeError: If nobody keeps its value where it can be found.
    """
    module, _, own = name.rpartition(".")
    for hook in _hooks(model.get_submodule(module)):
        kept: Mapping[str, Tensor] | None = getattr(hook, "weights_map", None)
        if kept is not None and own in kept:
            return kept[own]
    raise TypeError(
        f"expected weights with values, but {name!r} is on the meta device, which has none, and no hook of the "
        "accelerate package keeps them. Load the weights first: model.to_empty(device='cpu'), then "
        "model.load_state_dict(...)."
    )


def computes_by_itself(tensor: Tensor) -> bool:
    """Tell whether a tensor's class says what operations do with it, as for weights that are quantised or sharded."""
    own, plain = (getattr(cls, "__torch_dispatch__") for cls in (type(tensor), Tensor))  # noqa: B009
    return own is not plain


def _floating(model: nn.Module) -> Iterator[Tensor]:
    return (tensor for tensor in chain(model.parameters(), model.buffers()) if tensor.is_floating_point())


def _hooks(module: nn.Module) -> tuple[Any, ...]:
    """Return what the accelerate package hung on a module: a hook, or several in one."""
    hook = getattr(module, "_hf_hook", None)
    return tuple(getattr(hook, "hooks", (hook,)))
