"""What cannot be analysed, refused with what was expected, what was got, and the fix."""

from __future__ import annotations

import torch
from torch import nn


def analysable(model: object) -> nn.Module:
    """Return the model whose blocks can be changed, out of ``torch.compile``'s wrapper.

    Raises:
        TypeError: If it is no module, or one that ignores what is changed in its blocks.
    """
    if not isinstance(model, nn.Module):
        hint = f" Create it first: timm.create_model({model!r})." if isinstance(model, str) else ""
        raise TypeError(
            f"expected a torch.nn.Module or a ResidualNetwork, got {type(model).__name__} {model!r:.60}.{hint}"
        )
    original = getattr(model, "_orig_mod", None)
    if isinstance(original, nn.Module):  # torch.compile's OptimizedModule ignores what is changed in its blocks later
        model = original
    for name, module in model.named_modules():
        where = f"submodule {name!r}" if name else "the model"
        if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
            raise TypeError(
                f"expected plain modules, but {where} is {type(module).__name__}, whose replicas would run without the "
                "lesions. Pass its .module."
            )
        if isinstance(module, torch.fx.GraphModule):
            raise TypeError(
                f"expected modules that call their blocks, but {where} is an FX graph ({type(module).__name__}), "
                "which ran its blocks when it was traced. Pass the model that it was made from."
            )
        if isinstance(module, torch.jit.ScriptModule):
            raise TypeError(f"{where} is TorchScript, which ignores lesions. Pass the model that it was made from.")
        if getattr(module, "_orig_mod", None) is not None or getattr(module, "_compiled_call_impl", None) is not None:
            raise TypeError(f"{where} is compiled and would ignore lesions. Pass the model before it is compiled.")
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is None:
            raise TypeError(
                f"{where} ({type(module).__name__}) normalises with the statistics of its batch even in eval mode, "
                "so one image's result depends on the others'. Use track_running_stats=True."
            )
    return model


def require_whole_weights(model: nn.Module) -> None:
    """Refuse a model whose weights are gathered from several processes only while a module of its own runs.

    An analysis runs parts of blocks, and blocks in other places, and each process may do so another number of times.

    Raises:
        TypeError: If some module is sharded.
    """
    for name, module in model.named_modules():
        # by name, as importing torch's distributed package takes longer than everything else here
        if any(cls.__name__ in ("FSDPModule", "FullyShardedDataParallel") for cls in type(module).__mro__):
            where = f"submodule {name!r}" if name else "the model"
            raise TypeError(
                f"expected a model whose weights are all in this process, but {where} ({type(module).__name__}) is "
                "sharded by FSDP. Load the whole state dict into a model that is not: get_model_state_dict(model, "
                "options=StateDictOptions(full_state_dict=True)) of torch.distributed.checkpoint.state_dict."
            )
