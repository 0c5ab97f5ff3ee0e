"""Weights that stay away until a module runs, as the accelerate package leaves them: ``module._hf_hook``."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn


def offload(model: nn.Module, device: torch.device | str = "cpu", buffers: bool = False) -> nn.Module:
    """Move the weights of every module to the meta device until it runs, and give the model back."""
    for module in model.modules():
        kept = {"_parameters": {**module._parameters}, "_buffers": {**module._buffers} if buffers else {}}
        values = {name: tensor for tensors in kept.values() for name, tensor in tensors.items() if tensor is not None}
        hook = SimpleNamespace(execution_device=device, weights_map={k: v.detach().clone() for k, v in values.items()})
        module._hf_hook = SimpleNamespace(hooks=[SimpleNamespace(execution_device=None), hook])
        module.forward = partial(_run, module, module.forward, kept)
        _send_away(module, kept)
    return model


def _run(module: nn.Module, forward: Any, kept: dict[str, dict[str, Any]], *args: Any, **named: Any) -> Any:
    for registry, tensors in kept.items():
        here = vars(module)[registry]  # of the type that the model was last converted to
        here.update({k: v if v is None else _like(v, here[k]) for k, v in tensors.items()})
    try:
        return forward(*args, **named)
    finally:
        _send_away(module, kept)


def _like(value: torch.Tensor, away: torch.Tensor) -> torch.Tensor:
    cast = value.detach().to(away.dtype)
    return nn.Parameter(cast) if isinstance(away, nn.Parameter) else cast


def _send_away(module: nn.Module, kept: dict[str, dict[str, Any]]) -> None:
    for registry, tensors in kept.items():
        for name, tensor in tensors.items():
            if tensor is not None:
                away = vars(module)[registry][name].detach().to("meta")
                vars(module)[registry][name] = nn.Parameter(away) if registry == "_parameters" else away
