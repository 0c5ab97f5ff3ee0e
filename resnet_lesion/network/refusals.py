"""What cannot be analysed, refused with what was expected, what was got, and the fix."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain

import torch
from torch import Tensor, nn


def analysable(model: object) -> nn.Module:
    """Return the model whose blocks can be changed, out of ``torch.compile``'s wrapper.

    Raises:
        TypeError: If it is no module, or one that ignores what is changed in its blocks.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"expected a torch.nn.Module or a ResidualNetwork, got {_named(model)}")
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


def _named(model: object) -> str:
    """Say what was given in place of a model, and how to make a model of it."""
    kind = type(model).__name__
    if isinstance(model, str):
        return f"{kind} {model!r}. Create it first: timm.create_model({model!r})."
    if isinstance(model, Mapping):
        return f"{kind}. Load weights into their model first: model.load_state_dict(...)."
    if callable(model):
        return f"{kind} {getattr(model, '__name__', '')}".rstrip() + ". Call it first, which makes a model."
    return f"{kind}."


def refuse_inference_tensors(model: nn.Module) -> None:
    """Refuse a model that gradients cannot be computed with.

    Raises:
        ValueError: If a parameter or buffer was made in inference mode.
    """
    for name, tensor in chain(model.named_parameters(), model.named_buffers()):
        if tensor.is_inference():
            raise ValueError(
                f"expected weights that gradients can be computed with, but {name!r} was made in "
                "torch.inference_mode(). Pass copy.deepcopy(model), made outside of it."
            )


def require_finite(inputs: Tensor) -> None:
    """Refuse images that are not numbers.

    Raises:
        ValueError: If a value is NaN or infinite.
    """
    if not torch.isfinite(inputs).all():
        raise ValueError("expected finite inputs, got NaN or infinity. Check the images and their normalisation.")


def refuse_non_finite(model: nn.Module, outputs: Tensor) -> None:
    """Refuse a whole network whose weights or outputs are not numbers, and name the weights.

    Minus infinity is a number in parameters, other buffers and outputs: it is how classes and positions are ruled out.

    Args:
        model: The model.
        outputs: (N, ...) its outputs for some finite images, no block of it deleted.

    Raises:
        ValueError: If a parameter, a norm's running statistic or an output is NaN or infinite, or all of an image's
            outputs are minus infinity.
    """
    broken = [name for name, tensor in model.named_parameters() if not _all_numbers(tensor)]
    for name, tensor in model.named_buffers():
        if name.endswith(("running_mean", "running_var")) and not (_all_numbers(tensor) and _all_numbers(-tensor)):
            broken.append(name)
    rows = outputs.reshape(len(outputs), -1)
    found = bool((rows < torch.inf).all() & (rows > -torch.inf).any(1).all())
    if not found and not broken:  # buffers need not be used, and masks hold infinity
        broken = [name for name, tensor in model.named_buffers() if not _all_numbers(tensor)]
    if broken:
        more = f" and {len(broken) - 1} more" if len(broken) > 1 else ""
        raise ValueError(
            f"expected weights that are numbers, got NaN or infinity in {broken[0]!r}{more}. Had the training "
            "diverged, or was something left out when they were loaded?"
        )
    if not found:
        raise ValueError(
            f"expected a model that gives numbers, got NaN or infinity for finite images: they leave the range of "
            f"{outputs.dtype}. Use model.float() or a wider autocast, or check the images' normalisation."
        )


def _all_numbers(tensor: Tensor) -> bool:
    # not every subclass that holds quantised weights can compare them, and what is offloaded is not there
    if type(tensor) not in (Tensor, nn.Parameter) or tensor.is_meta or not tensor.is_floating_point():
        return True
    return bool(((tensor.float() if tensor.itemsize == 1 else tensor) < torch.inf).all())


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
