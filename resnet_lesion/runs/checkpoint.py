"""How far a pass over the data has come, in one netCDF file that is replaced as a whole."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

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


@dataclass(frozen=True)
class Done:
    """How far a pass has come.

    Attributes:
        n_images: Number of images done.
        last: Digest of the last of them.
        complete: Whether these are all.
    """

    n_images: int = 0
    last: str = ""
    complete: bool = False


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
            fingerprint, done = json.loads(state.attrs["fingerprint"]), Done(**json.loads(state.attrs["done"]))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"the checkpoint {str(self._path)!r} cannot be read: {error} {advice}") from error
        if fingerprint != self._fingerprint:
            found = differences(fingerprint, self._fingerprint)
            raise ValueError(f"the checkpoint {str(self._path)!r} is of another run: {found}. {advice}")
        for name, total in totals.items():
            if isinstance(total, list):
                total[:] = [torch.from_numpy(state[name].values)] if name in state else []
            else:
                total.copy_(torch.from_numpy(state[name].values))
        return done


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
