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
from numpy.typing import NDArray
from torch import nn

from resnet_lesion.isolation import autocast_dtype
from resnet_lesion.network import ResidualNetwork

CONVENTIONS = "CF-1.11"
REFERENCES = (
    "Veit, Wilber & Belongie 2016, Residual Networks Behave Like Ensembles of Relatively Shallow Networks, "
    "arXiv:1605.06431"
)
# what a result depends on, besides options and versions
_FINGERPRINT = ("title", "model", "weights_sha256", "n_blocks", "dtype", "autocast")
# how a network was accelerated; how closely it agrees differs between machines
_ACCELERATION = ("n_folded", "channels_last", "compile")
# options that change neither a count nor, but for rounding, anything else
_WITHOUT_EFFECT = ("perturbations_per_eval", "memory_limit")
_PACKAGES = ("resnet-lesion", "torch", "timm", "captum", "xarray", "numpy")


def variable(
    dims: Sequence[str], values: Any, long_name: str, units: str = "1", over_images: str | None = None
) -> xr.Variable:
    """Make a variable that says what it is.

    Args:
        dims: Its dimensions.
        values: Its values.
        long_name: What it is, in words.
        units: Its unit; "1" for counts and shares.
        over_images: "sum", "mean" or "maximum" if that is what it is over the images, from which follows how results of
            some of the images are merged; written as the CF conventions do. What follows from other variables has none.
    """
    attrs = {"long_name": long_name, "units": units}
    if over_images is not None:
        attrs["cell_methods"] = f"sample: {over_images}"
    return xr.Variable(tuple(dims), values, attrs)


def layer_coords(network: ResidualNetwork, dim: str = "layer") -> dict[str, xr.Variable]:
    """Return the coordinates of the blocks along ``dim``: name, stage and whether the shortcut is a projection."""
    return {
        "layer": variable((dim,), np.array(network.layers), "residual block"),
        "stage": variable((dim,), network.stage, "stage of the block"),
        "is_downsampling": variable((dim,), network.is_downsampling, "whether the shortcut is a projection"),
    }


def provenance(dataset: xr.Dataset, attrs: Mapping[str, str | int]) -> xr.Dataset:
    """Return the dataset with the attributes that :func:`origin` made, but for those that it has already."""
    _name_coordinates(dataset)
    return dataset.assign_attrs({**attrs, **dataset.attrs})


def origin(network: ResidualNetwork, title: str, options: Mapping[str, object]) -> dict[str, str | int]:
    """Return attributes that say how a result comes about.

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
        "versions": json.dumps({package: version(package) for package in _PACKAGES}),
        "model": model_name(network.model),
        "weights_sha256": weights_hash(network.model),
        "n_blocks": len(network),
        "device": _device_name(network.device),
        "dtype": str(network.dtype).removeprefix("torch."),
        "autocast": str(autocast).removeprefix("torch."),
        "options": json.dumps(options, default=_plain),
        **network.attrs,
    }


def now() -> str:
    """Return the time in UTC as ISO 8601 writes it, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def fingerprint(attrs: Mapping[str, str | int]) -> dict[str, object]:
    """Return what must be equal for two runs to be parts of one, from the attributes that :func:`origin` made."""
    found: dict[str, object] = {name: attrs[name] for name in _FINGERPRINT}
    options = json.loads(str(attrs["options"]))
    found["options"] = {key: value for key, value in options.items() if key not in _WITHOUT_EFFECT}
    found["versions"] = json.loads(str(attrs["versions"]))
    if "acceleration" in attrs:
        acceleration = json.loads(str(attrs["acceleration"]))
        found["acceleration"] = {key: acceleration[key] for key in _ACCELERATION}
    return found


def differences(a: Mapping[str, object], b: Mapping[str, object], prefix: str = "") -> str:
    """Say in which entries two identities differ."""
    found = []
    for key in [*a, *(key for key in b if key not in a)]:
        x, y = a.get(key), b.get(key)
        if isinstance(x, Mapping) and isinstance(y, Mapping) and x != y:
            found.append(differences(x, y, f"{prefix}{key}."))
        elif x != y:
            found.append(f"{prefix}{key} was {x!r:.60} and is {y!r:.60}")
    return "; ".join(found)


def model_name(model: nn.Module) -> str:
    """Return timm's name of the model with its tag, or its class.

    timm does not say whether it has loaded the tag's weights; the hash of the weights tells. With another number of
    outputs they are not those, and there is no tag.
    """
    config = getattr(model, "pretrained_cfg", None) or {}
    name, tag = config.get("architecture"), config.get("tag")
    if not name:
        return type(model).__name__
    as_tagged = getattr(model, "num_classes", None) == config.get("num_classes")
    return f"{name}.{tag}" if tag and as_tagged else str(name)


def array_hash(array: NDArray[Any]) -> str:
    """Return the SHA-256 of an array's values."""
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


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
