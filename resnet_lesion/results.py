"""The common form of every result: named dimensions, units, and where it came from."""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import nn

from resnet_lesion.network import ResidualNetwork

CONVENTIONS = "CF-1.11"
REFERENCES = (
    "Veit, Wilber & Belongie 2016, Residual Networks Behave Like Ensembles of Relatively Shallow Networks, "
    "arXiv:1605.06431"
)
_PACKAGES = ("resnet-lesion", "torch", "timm", "captum", "xarray", "numpy")


def variable(dims: Sequence[str], values: Any, long_name: str, units: str = "1") -> xr.Variable:
    """Make a variable that says what it is and in which unit; "1" for counts and shares."""
    return xr.Variable(tuple(dims), values, {"long_name": long_name, "units": units})


def layer_coords(network: ResidualNetwork, dim: str = "layer") -> dict[str, xr.Variable]:
    """Return the coordinates of the blocks along ``dim``: name, stage and whether the shortcut is a projection."""
    return {
        "layer": variable((dim,), np.array(network.layers), "residual block"),
        "stage": variable((dim,), network.stage, "stage of the block"),
        "is_downsampling": variable((dim,), network.is_downsampling, "whether the shortcut is a projection"),
    }


def provenance(dataset: xr.Dataset, network: ResidualNetwork, title: str, options: Mapping[str, object]) -> xr.Dataset:
    """Return the dataset with attributes that say how it came about; all of them str or int.

    Args:
        dataset: A result.
        network: The network that was analysed.
        title: What the result is.
        options: The call's own options, written as one JSON string.
    """
    _name_coordinates(dataset)
    device_type = network.device.type
    autocast = torch.get_autocast_dtype(device_type) if torch.is_autocast_enabled(device_type) else None
    attrs = {
        "Conventions": CONVENTIONS,
        "title": title,
        "references": REFERENCES,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": json.dumps({package: version(package) for package in _PACKAGES}),
        "model": model_name(network.model),
        "weights_sha256": weights_hash(network.model),
        "n_blocks": len(network),
        "device": _device_name(network.device),
        "dtype": str(network.dtype).removeprefix("torch."),
        "autocast": str(autocast).removeprefix("torch."),
        "options": json.dumps(options, default=_plain),
    }
    return dataset.assign_attrs({**attrs, **network.attrs, **dataset.attrs})


def model_name(model: nn.Module) -> str:
    """Return timm's name of the model with its tag, or its class."""
    config = getattr(model, "pretrained_cfg", None) or {}
    name, tag = config.get("architecture"), config.get("tag")
    if not name:
        return type(model).__name__
    return f"{name}.{tag}" if tag else str(name)


def weights_hash(model: nn.Module) -> str:
    """Return the SHA-256 of all parameters and buffers with their names, types and shapes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if not isinstance(tensor, torch.Tensor):
            continue
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


_COORDINATES = {
    "lesion": "number of the lesion",
    "position": "position in the network",
    "n_deleted": "number of deleted blocks",
    "n_swaps": "number of swaps",
    "draw": "number of the random repetition",
    "path_length": "number of branches on the path",
    "class": "class label",
    "sample": "number of the image",
}


def _name_coordinates(dataset: xr.Dataset) -> None:
    for name, long_name in _COORDINATES.items():
        if name in dataset.coords:
            dataset[name].attrs = {"long_name": long_name, "units": "1"}


def _device_name(device: torch.device) -> str:
    return f"{device.type} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else device.type


def _plain(value: object) -> object:
    if isinstance(value, np.integer | np.floating):
        return value.item()
    return list(value) if isinstance(value, range | np.ndarray | set) else str(value)
