"""Weights out of the files that training scripts write, and into a model that they fit."""

from __future__ import annotations

import argparse
import pickle
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_MAY_BE_MISSING = "num_batches_tracked"  # PyTorch had none of it before 0.4.1, and evaluation does not need it


# what a training script keeps a network's weights under, and what wrappers and containers put before their names
_HOLDERS = ("state_dict", "model_state_dict", "model", "module", "net", "network")


_AVERAGES = (
    *("state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "ema", "model_ema_state_dict"),
    *("ema_model_state_dict", "model_state_dict_ema"),
)


# what wrappers put between the names of modules, wherever they are
_INSERTED = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")


_SCALAR = np.float64(0).__reduce__()[0]  # the function that makes a NumPy scalar, which has moved


# options, paths and scores that are kept beside weights: plain values, which run nothing
_HARMLESS: list[Any] = [
    argparse.Namespace,
    SimpleNamespace,
    *(
        (PurePosixPath, f"{module}.{kind}Path")
        for module in ("pathlib", "pathlib._local")
        for kind in ("PurePosix", "Posix")
    ),
    *((PureWindowsPath, f"{module}.WindowsPath") for module in ("pathlib", "pathlib._local")),
    *((_SCALAR, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    np.dtype,
    *(type(np.dtype(code)) for code in np.typecodes["AllInteger"] + np.typecodes["Float"] + "?"),
]


def read_weights(
    path: Path, wanted: Iterable[str], *, ema: bool = False, say: Callable[[str], None] = warnings.warn
) -> dict[str, Tensor]:
    """Read the weights of a network from a file, without running anything that is in it.

    They may be in a dictionary with whatever else training needs, under any of the usual keys, and their names may
    have the prefixes that DataParallel, ``torch.compile`` or Lightning put before them.

    Args:
        path: A safetensors file, whatever its name, or one that ``torch.save`` wrote.
        wanted: The names of the network's own weights.
        ema: Whether to take the moving average of the weights instead.
        say: What is told which were taken, if the file has both.

    Returns:
        The weights by their names, without prefixes.

    Raises:
        ValueError: If the file holds anything else, none of what was asked for, or several networks.
    """
    held = {name: value for name, value in _flat(_content(path)) if isinstance(value, Tensor)}
    if not held:
        raise _unfit(path, "it holds no weights.")
    for inserted in _INSERTED:
        held = {name.replace(inserted, ""): value for name, value in held.items()}
    expected = set(wanted)
    taken: list[str] = []
    is_average, other = False, ""
    while expected.isdisjoint(held):
        heads = {name.partition(".")[0] for name in held}
        plain, averages = ([head for head in names if head in heads] for names in (_HOLDERS, _AVERAGES))
        choice = averages if ema and averages else plain
        if not choice and averages:
            raise _unfit(path, f"it holds moving averages of weights only ({averages[0]}). Pass ema=True to take them.")
        if len(choice) > 1:
            raise _unfit(path, f"it holds several networks: {', '.join(choice)}. Save the state dict of one.")
        if not choice:
            break
        if averages:
            is_average, other = ema, (plain or [""])[0] if ema else averages[0]
        taken += choice
        held = {name.removeprefix(f"{choice[0]}."): held[name] for name in held if name.startswith(f"{choice[0]}.")}
    if ema and not is_average:
        raise _unfit(path, "it holds no moving average of the weights. Leave out ema=True.")
    if other:
        kinds = ("the moving average of the weights", "the weights") if ema else ("the weights", "their moving average")
        fix = "leave out ema=True for those" if ema else "pass ema=True for that"
        say(f"{str(path)!r} holds both: took {kinds[0]} ({'.'.join(taken)}), not {kinds[1]} ({other}); {fix}.")
    return held


def fit_weights(model: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    """Load weights into a model, cast to its dtype.

    Args:
        model: The model.
        weights: What :func:`read_weights` returned.
        path: The file, to be named in errors.

    Raises:
        ValueError: If any weight is missing or not the model's, or has another shape, or is not floating-point where
            the model's is.
    """
    own = model.state_dict()
    head = getattr(model, "pretrained_cfg", {}).get("classifier")
    heads = tuple(f"{name}." for name in ([head] if isinstance(head, str) else head or []))
    missing = [name for name in own if name not in weights and not name.endswith(_MAY_BE_MISSING)]
    unexpected = [name for name in weights if name not in own]
    other = [name for name in own if name in weights and own[name].shape != weights[name].shape]
    if missing and not unexpected and not other and all(name.startswith(heads) for name in missing):
        raise _unfit(path, f"it has no classifier ({', '.join(missing)}). A backbone alone gives no classes to err on.")
    if other and not missing and not unexpected and all(name.startswith(heads) for name in other):
        n_classes, own_classes = len(weights[other[0]]), len(own[other[0]])
        fix = f"Pass num_classes={n_classes}."
        raise _unfit(path, f"its classifier has {n_classes} outputs, and the model {own_classes}. {fix}")
    if missing or unexpected or other:
        examples = [
            f"{len(names)} {what}, such as {names[0]}"
            for what, names in (("missing", missing), ("unexpected", unexpected))
            if names
        ]
        examples += [f"{name} of shape {tuple(weights[name].shape)} for {tuple(own[name].shape)}" for name in other[:1]]
        raise _unfit(path, f"{'; '.join(examples)}. Is it of another model, or is num_classes= another?")
    for name, value in weights.items():
        if own[name].is_floating_point() and not value.is_floating_point():
            raise _unfit(path, f"{name} is {value.dtype}, and the model's {own[name].dtype}. Dequantise it first.")
    model.load_state_dict({**{name: own[name] for name in own if name not in weights}, **weights})


def _content(path: Path) -> Any:
    """Return what a file holds; nothing but tensors and plain values is unpickled."""
    try:
        if _is_safetensors(path):
            from safetensors.torch import load_file

            return load_file(path)
        with torch.serialization.safe_globals(_HARMLESS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever an unreadable file makes torch, safetensors and pickle raise
        objects = _objects(path) if isinstance(error, pickle.UnpicklingError) else ""
        if objects:
            cause = f"it holds objects ({objects}) beside plain weights, and nothing else is unpickled. "
            raise _unfit(path, f"{cause}Save model.state_dict() alone.") from error
        cause = f"it does not hold plain weights, and nothing else is unpickled ({type(error).__name__})."
        raise _unfit(path, cause) from error


def _is_safetensors(path: Path) -> bool:
    """Tell by its first bytes: the length of a JSON header, then the header."""
    with path.open("rb") as file:
        start = file.read(9)
    length = int.from_bytes(start[:8], "little")
    return start[8:] == b"{" and 2 <= length <= path.stat().st_size - 8


def _objects(path: Path) -> str:
    """Name the classes and functions that a file would need and is not given."""
    try:
        with torch.serialization.safe_globals(_HARMLESS):
            names = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # a file in the old format, or damaged
        return ""
    # a model of one's own rather than PyTorch's layers says most
    names.sort(key=lambda name: name.startswith(("torch.", "builtins.", "collections.")))
    return ", ".join(names[:2]) + (", ..." if len(names) > 2 else "")


def _flat(content: Any, prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Yield what dictionaries within dictionaries hold, with the names of all levels joined by dots."""
    if not isinstance(content, Mapping):
        yield prefix.removesuffix("."), content
        return
    for name, value in content.items():
        if isinstance(name, str):
            yield from _flat(value, f"{prefix}{name}.")


def _unfit(path: Path, cause: str) -> ValueError:
    return ValueError(
        f"expected a state dict of this model, as safetensors or saved by torch.save, got {str(path)!r}: {cause}"
    )
