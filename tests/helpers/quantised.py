"""Weights that compute by themselves: tensors of int8 values with one scale, as quantisation makes them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map


class Opaque(Tensor):
    """``scale * values``, which answers every operation with the plain tensor that it stands for."""

    values: Tensor
    scale: Tensor

    @staticmethod
    def __new__(cls, values: Tensor, scale: Tensor) -> Any:
        return Tensor._make_wrapper_subclass(cls, values.shape, dtype=scale.dtype, device=values.device)

    def __init__(self, values: Tensor, scale: Tensor) -> None:
        self.values, self.scale = values, scale

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.ops.aten.detach.default, torch.ops.aten.clone.default):
            return cls(args[0].values, args[0].scale)
        args, kwargs = tree_map(lambda x: x.values * x.scale if isinstance(x, cls) else x, (args, kwargs or {}))
        return func(*args, **kwargs)


class Quantised(Opaque):
    """The same, and it says what it is made of."""

    def __tensor_flatten__(self) -> tuple[list[str], dict[str, object]]:
        return ["values", "scale"], {"dtype": self.dtype, "kernel": object()}

    @classmethod
    def __tensor_unflatten__(cls, parts: Any, _context: Any, _size: Any, _stride: Any) -> Any:
        return cls(parts["values"], parts["scale"])


def quantise(model: nn.Module, kind: type[Opaque] = Quantised) -> nn.Module:
    """Replace the weights of a model's linear layers, and give it back."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            scale = module.weight.detach().abs().max() / 127
            values = (module.weight.detach() / scale).round().to(torch.int8)
            module.weight = nn.Parameter(kind(values, scale), requires_grad=False)
    return model
