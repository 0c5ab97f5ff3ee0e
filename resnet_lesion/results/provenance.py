"""Where a result came from: the network and its blocks, versions and options, and hashes of weights and images."""

from __future__ import annotations

import datetime
import hashlib
import json
import re
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._python_dispatch import is_traceable_wrapper_subclass
from torch.utils._pytree import tree_leaves

from resnet_lesion.network.precision import autocast_dtype
from resnet_lesion.network.residual_network import ResidualNetwork
from resnet_lesion.network.weights import computes_by_itself, offloaded_value
from resnet_lesion.results.variables import variable

CONVENTIONS = "CF-1.11"


REFERENCES = (
    "Veit, Wilber & Belongie 2016, Residual Networks Behave Like Ensembles of Relatively Shallow Networks, "
    "arXiv:1605.06431"
)


_ADDRESS = re.compile(r" at 0x[0-9a-f]+")  # another in each process


_PACKAGES = ("resnet-lesion", "torch", "timm", "captum", "xarray", "numpy")


def layer_coords(network: ResidualNetwork, dim: str = "layer") -> dict[str, xr.Variable]:
    """Return the coordinates of the blocks along ``dim``: name, stage and whether the shortcut is a projection."""
    return {
        "layer": variable((dim,), np.array(network.layers), "residual block"),
        "stage": variable((dim,), network.stage, "stage of the block"),
        "is_downsampling": variable((dim,), network.is_downsampling, "whether the shortcut is a projection"),
    }


def origin(network: ResidualNetwork, title: str, options: Mapping[str, object]) -> dict[str, str | int]:
    """Return attributes that say how a result came about.

    Args:
        network: The network that is analysed.
        title: What the result is.
        options: The call's own options, written as one JSON string.
    """
    autocast = autocast_dtype(network.device)
    return {
        "Conventions": CONVENTIONS,
        "title": title,
        "references": REFERENCES,
        "created": now(),
        "versions": _versions(),
        "model": model_name(network.model),
        "weights_sha256": weights_hash(network.model),
        "n_blocks": len(network),
        "device": _device_name(network.device),
        "dtype": str(network.dtype).removeprefix("torch."),
        "autocast": str(autocast).removeprefix("torch."),
        "options": json.dumps(options, default=_as_json),
        **network.attrs,
    }


@cache
def _versions() -> str:
    """Read the packages' versions, once, as that takes as long as a small analysis."""
    return json.dumps({package: version(package) for package in _PACKAGES})


def now() -> str:
    """Return the time in UTC as ISO 8601 writes it, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def model_name(model: nn.Module) -> str:
    """Return timm's name of the model with its tag, or its class.

    timm does not say whether it has loaded the tag's weights; the hash of the weights tells. With another number of
    outputs, or batch norms that have seen no image, they are not those, and there is no tag.
    """
    config = getattr(model, "pretrained_cfg", None) or {}
    name, tag = config.get("architecture"), config.get("tag")
    if not name:
        return type(model).__name__
    as_tagged = getattr(model, "num_classes", None) == config.get("num_classes")
    return f"{name}.{tag}" if tag and as_tagged and not _is_fresh(model) else str(name)


def _is_fresh(model: nn.Module) -> bool:
    """Tell whether all of a model's batch norms are as they were made."""
    means = [module.running_mean for module in model.modules() if isinstance(module, _BatchNorm)]
    known = [mean for mean in means if mean is not None and not mean.is_meta]
    return bool(known) and not any(bool(mean.any()) for mean in known)


def array_hash(array: NDArray[Any]) -> str:
    """Return the SHA-256 of an array's values."""
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def weights_hash(model: nn.Module) -> str:
    """Return the SHA-256 of all parameters and buffers with their names, types and shapes.

    Weights that are quantised, sharded or offloaded are hashed by their values too.

    Raises:
        TypeError: If the values of some cannot be read.
    """
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        for leaf in tree_leaves(value):  # a quantised module packs its weight and bias together
            if isinstance(leaf, Tensor):
                _add(digest, name, offloaded_value(model, name) if leaf.is_meta else leaf)
    return digest.hexdigest()


def _add(digest: hashlib._Hash, name: str, tensor: Tensor) -> None:
    gather = getattr(tensor, "full_tensor", None)
    if gather is not None:  # a DTensor, of which each process holds a part
        tensor = gather()
    head = f"{name} {tensor.dtype} {tuple(tensor.shape)}"
    if is_traceable_wrapper_subclass(tensor):
        parts, context = tensor.__tensor_flatten__()
        digest.update(f"{head} {type(tensor).__qualname__} {_ADDRESS.sub('', repr(context))}".encode())
        for part in parts:
            _add(digest, f"{name}.{part}", getattr(tensor, part))
        return
    if computes_by_itself(tensor):
        raise TypeError(
            f"expected weights whose values can be read, got {type(tensor).__qualname__} ({name!r}). Let the class "
            "say what it is made of, by __tensor_flatten__, or replace its tensors by plain ones."
        )
    digest.update(head.encode())
    if tensor.is_quantized:
        tensor = tensor.dequantize()
    digest.update(_bytes_of(tensor.to_dense() if tensor.layout != torch.strided else tensor))


def image_digest(image: Tensor, target: Tensor) -> str:
    """Return the SHA-256 of an image (1, ...) with its label (1,)."""
    digest = hashlib.sha256(_bytes_of(image))
    digest.update(str(target.tolist()).encode())
    return digest.hexdigest()


def _bytes_of(tensor: Tensor) -> bytes:
    """Return a tensor's values as bytes, whatever its device, strides and type: numpy, for one, has no bfloat16."""
    plain = tensor.detach().as_subclass(Tensor)
    return plain.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def _device_name(device: torch.device) -> str:
    return f"{device.type} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else device.type


def _as_json(value: object) -> object:
    if isinstance(value, np.integer | np.floating):
        return value.item()
    return list(value) if isinstance(value, range | np.ndarray | set) else str(value)
