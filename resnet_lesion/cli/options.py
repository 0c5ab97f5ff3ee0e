"""The options that several subcommands share, and how their values are read."""

from __future__ import annotations

import argparse
import os
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import torch
    from _typeshed import DataclassInstance

    _D = TypeVar("_D", bound=DataclassInstance)


def add_data_options(command: argparse.ArgumentParser) -> Any:
    """Add the fields of an ImageSet, except its split, and return their group."""
    workers = min(4, os.cpu_count() or 1)
    data = command.add_argument_group("data")
    data.add_argument(
        "--data",
        required=True,
        help="a folder, zip file or tar archive with a subfolder per class, 'digits', or a data set as timm names it: "
        "torch/cifar10, hfds/NAME",
    )
    data.add_argument("--data-dir", type=Path, metavar="DIR", help="where a named data set is, or is downloaded to")
    data.add_argument("--download", action="store_true", help="download a torchvision data set that is missing")
    data.add_argument("--class-map", type=Path, metavar="FILE", help="folder names in the order of the model's outputs")
    data.add_argument(
        "--classes",
        metavar="FILE",
        help="for images of some of the model's outputs: the names of all outputs in order, one a line, of which each "
        "folder has one; or a list that timm has, such as imagenet-1k",
    )
    data.add_argument(
        "--image-size", type=positive, metavar="N", help="scale images to N pixels (default: the model's)"
    )
    data.add_argument(
        "--skip-unreadable", action="store_true", help="leave out images that cannot be read, and count them"
    )
    data.add_argument("--batch-size", type=positive, default=64, metavar="N", help="images in a batch")
    data.add_argument("--workers", type=not_negative, default=workers, metavar="N", help="loading processes")
    return data


def add_source_options(command: argparse.ArgumentParser) -> Any:
    """Add the fields of a Source, images to train on and to evaluate on, and return their group."""
    data = add_data_options(command)
    data.add_argument("--split", default="train", help="which split to train on")
    data.add_argument("--validation-split", default="validation", metavar="SPLIT", help="which to evaluate on")
    data.add_argument("--validation-data", metavar="DATA", help="other data to evaluate on")
    return data


def add_device_options(command: argparse.ArgumentParser) -> Any:
    """Add where and how to compute, and return the group."""
    how = command.add_argument_group("how")
    how.add_argument("--seed", type=not_negative, default=0, metavar="N", help="seed of everything random")
    how.add_argument("--device", help="cpu, cuda or cuda:1 (default: cuda if there is one, else cpu)")
    how.add_argument(
        "--amp",
        dest="autocast",
        action="store_true",
        help="autocast to bfloat16 (float16 where that is not supported)",
    )
    how.add_argument("--channels-last", action="store_true", help="channels-last memory format")
    return how


def add_amounts(how: Any) -> None:
    """Add how much a study draws and measures."""
    how.add_argument(
        "--n-draws", type=positive, default=10, metavar="N", help="random deletions and reorderings of each size"
    )
    how.add_argument("--n-paths", type=positive, default=100, metavar="N", help="random paths of each length")
    how.add_argument(
        "--n-gradient-images", type=positive, default=128, metavar="N", help="images on which gradients are measured"
    )


def from_options(cls: type[_D], args: argparse.Namespace) -> _D:
    """Build a dataclass from the options that are named as its fields; a field without one keeps its default."""
    given = vars(args)
    return cls(**{field.name: given[field.name] for field in fields(cls) if field.name in given})


def path(text: str) -> Path:
    """Read the path of a file or folder that is written, or of a result: netCDF and safetensors want it in UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError(f"expected a path in UTF-8, got {text!r}") from None
    return Path(text)


def positive(text: str) -> int:
    """Read a whole number of at least 1."""
    return _at_least(1, text)


def not_negative(text: str) -> int:
    """Read a whole number of at least 0."""
    return _at_least(0, text)


def _at_least(low: int, text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = low - 1
    if value < low:
        raise argparse.ArgumentTypeError(f"expected a whole number >= {low}, got {text!r}")
    if value >= 2**63:  # torch counts no further
        raise argparse.ArgumentTypeError(f"expected a whole number below 2^63, got {text!r}")
    return value


def as_device(name: str | None) -> torch.device:
    """Return the device of this name, or the best one available, and refuse what cannot be used.

    Raises:
        ValueError: If there is no such device, it is not available, or it has no float64.
    """
    import torch

    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"expected --device as cpu, cuda or cuda:1, got {name!r}.") from error
    if device.type == "mps":
        raise ValueError("--device mps has no float64, in which results are added up. Try --device cpu.")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"--device {name} cannot be used here: {error!s:.120}. Try --device cpu.") from error
    return device
