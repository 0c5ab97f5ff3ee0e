"""How far a pass over the data has come, in one netCDF file that is replaced as a whole."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from resnet_lesion.results import storage

Totals: TypeAlias = Mapping[str, "Tensor | list[Tensor]"]
"""What is added up in place: tensors of a fixed size, and lists that get one tensor more for some of the images."""


# what a result depends on, besides options and versions
_FINGERPRINT = ("title", "model", "weights_sha256", "n_blocks", "dtype", "autocast")

# how a network was accelerated; how closely it agrees differs between machines
_ACCELERATION = ("n_folded", "channels_last", "compile")

# options that change neither a count nor, except by rounding, anything else
_WITHOUT_EFFECT = ("perturbations_per_eval", "memory_limit")

# what files of older versions may not say
_SINCE_0_1_0 = ("n_images", "pass", "behaviour")


@dataclass(frozen=True)
class Done:
    """How far a pass has come.

    Attributes:
        n_images: Number of images done.
        last: Digest of the last of them.
        complete: Whether these are all.
        labels: What :func:`sum_of_labels` says of theirs; None if an older version wrote the file.
        sample: Digests of some of them, as :class:`Trail` chooses them; None as well.
    """

    n_images: int = 0
    last: str = ""
    complete: bool = False
    labels: int | None = 0
    sample: list[str] | None = field(default_factory=list)


class Checkpoint:
    """The file of one pass.

    Args:
        path: The file.
        fingerprint: What the run is; a file of another run is refused.
    """

    def __init__(self, path: Path, fingerprint: Mapping[str, object]) -> None:
        self._path, self._fingerprint = path, fingerprint

    def save(self, totals: Totals, done: Done) -> None:
        """Write the totals and how many images they hold.

        Raises:
            OSError: If the file cannot be written; the one that was there before stays.
        """
        variables = {}
        for name, total in totals.items():
            if isinstance(total, list):
                if not total:
                    continue
                total = torch.cat([part.cpu() for part in total])
            dims = tuple(f"{name}_{axis}" for axis in range(total.ndim))
            variables[name] = xr.Variable(dims, total.cpu().numpy())
        attrs = {"fingerprint": json.dumps(self._fingerprint), "done": json.dumps(vars(done))}
        self._path.parent.mkdir(parents=True, exist_ok=True)  # somebody may have deleted it since
        storage.save(xr.Dataset(variables, attrs=attrs), self._path)

    def load(self, totals: Totals) -> Done:
        """Load what has been done into the totals, in place, and say how much it is; nothing if there is no file.

        Raises:
            ValueError: If the file is damaged, or of another run.
        """
        if not self._path.exists():
            return Done()
        advice = "Delete it to start over, or pass another folder as checkpoint."
        try:
            state = storage.open(self._path)
            found = as_object(state.attrs["fingerprint"])
            done = Done(**{"labels": None, "sample": None, **as_object(state.attrs["done"])})
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"the checkpoint {str(self._path)!r} cannot be read: {error} {advice}") from error
        unsaid = {key: value for key, value in self._fingerprint.items() if key in _SINCE_0_1_0 and not found.get(key)}
        if differing := differences({**found, **unsaid}, self._fingerprint):
            raise ValueError(f"the checkpoint {str(self._path)!r} is of another run: {differing}. {advice}")
        for name, total in totals.items():
            values = torch.from_numpy(state[name].values) if name in state else None
            if isinstance(total, list):
                total[:] = [] if values is None else [values]
            elif values is None or (values.shape, values.dtype) != (total.shape, total.dtype):
                raise ValueError(
                    f"the checkpoint {str(self._path)!r} cannot be read: expected {name} as {total.dtype} "
                    f"{tuple(total.shape)}. {advice}"
                )
            else:
                total.copy_(values)
        return done


def as_object(text: object) -> dict[str, Any]:
    """Read a dictionary that was written as JSON, where a file may hold anything else.

    Raises:
        ValueError: If it is something else, or holds NaN or infinity, which JSON has no word for.
    """

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    try:
        found = json.loads(text, parse_constant=refuse)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        found = None
    if not isinstance(found, dict):
        raise ValueError(f"expected a JSON object, got {str(text)!r:.60}.")
    return found


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
    """Say in which entries two identities differ; nothing if in none, except for what rounding does to outputs."""
    found = []
    for key in [*a, *(key for key in b if key not in a)]:
        x, y = a.get(key), b.get(key)
        if key == "behaviour":
            found += _changes(x, y)
        elif isinstance(x, Mapping) and isinstance(y, Mapping):
            found += filter(None, [differences(x, y, f"{prefix}{key}.")])
        elif x != y:
            found.append(f"{prefix}{key} was {x!r:.60} and is {y!r:.60}")
    return "; ".join(found)


def _changes(a: Any, b: Any) -> list[str]:
    """Say how what two networks do differs, as :class:`~resnet_lesion.engines.proof.Proof` has it."""
    if a is None or b is None:  # of a version that did not look
        return []
    found = []
    x, y = (np.array(behaviour["outputs"], dtype=float) for behaviour in (a, b))
    rounding = max(a["rounding"], b["rounding"])
    if x.shape != y.shape or not np.abs(x - y).max() <= rounding * np.abs([x, y]).max():
        found.append("the outputs for the first image are others, though names and weights are the same")
    if changed := sorted({*a["hooks"]} ^ {*b["hooks"]}):
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        found.append(f"hooks, or a replaced forward, came or went on {changed[0] or 'the model'!r}{more}")
    return found
