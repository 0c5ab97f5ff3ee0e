"""A shard: the part of a run that one of several machines does; all shards together are the run."""

from __future__ import annotations

import json
import operator
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal, TypeAlias

import numpy as np

from resnet_lesion.network.orders import IntArray

Part: TypeAlias = tuple[int, int]
"""(i, N): the i-th of N parts, counted from 0."""


ShardLike: TypeAlias = "Part | Mapping[Literal['data', 'lesions'], Part] | Literal['env'] | Shard | None"
"""(i, N) for every N-th image from the i-th on, ``{"data": (i, N), "lesions": (j, M)}`` for a part of the lesions
too, or "env" for what torchrun or a Slurm array of all shards tells the process; None for the whole run."""


_EXPECTED = 'expected shard as (i, N) with 0 <= i < N, as {"data": (i, N), "lesions": (j, M)} or as "env"'


_ARRAY = "SLURM_ARRAY_TASK"


# (number, count) of this process, by what started it
_VARIABLES = {"torchrun": ("RANK", "WORLD_SIZE"), "a Slurm array": (f"{_ARRAY}_ID", f"{_ARRAY}_COUNT")}


@dataclass(frozen=True)
class Shard:
    """A part of the images and a part of the lesions.

    Attributes:
        data: (i, N): the images with the numbers i, i + N, i + 2 N, ...
        lesions: (j, M): the j-th of M parts of the lesions.
    """

    data: Part = (0, 1)
    lesions: Part = (0, 1)

    def __post_init__(self) -> None:
        for i, n in (self.data, self.lesions):
            if not 0 <= i < n:
                raise ValueError(f"{_EXPECTED}, got {(i, n)}.")

    @property
    def is_whole(self) -> bool:
        """Whether this is all of the run."""
        return self == Shard()

    def __str__(self) -> str:
        (i, n), (j, m) = self.data, self.lesions
        return f"{i} of {n}" + (f" (lesions {j} of {m})" if m > 1 else "")

    @property
    def name(self) -> str:
        """What the shard is called in file names; empty for the whole run."""
        parts = {"": self.data, "lesions-": self.lesions}
        return "".join(f".{prefix}{i}-of-{n}" for prefix, (i, n) in parts.items() if n > 1)

    def lesion_numbers(self, rows: IntArray) -> IntArray:
        """Choose this shard's lesions among order rows, neighbours together, as they share the longest prefixes."""
        j, m = self.lesions
        return np.sort(np.array_split(np.lexsort(rows.T[::-1]), m)[j])

    def to_json(self) -> str:
        """Write it as an attribute of a result."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Shard:
        """Read it back."""
        return cls(**{key: (int(part[0]), int(part[1])) for key, part in json.loads(text).items()})


def as_shard(shard: ShardLike) -> Shard:
    """Check what a user passes as a shard.

    Raises:
        TypeError: If it is of the wrong kind.
        ValueError: If it is out of bounds, or "env" and the environment says nothing.
    """
    if shard is None or isinstance(shard, Shard):
        return shard or Shard()
    if shard == "env":
        return Shard(_of_environment())
    parts = shard if isinstance(shard, Mapping) else {"data": shard}
    try:
        if not parts or set(parts) - {"data", "lesions"}:
            raise TypeError
        pairs = {key: (operator.index(i), operator.index(n)) for key, (i, n) in parts.items()}
    except (TypeError, ValueError) as error:
        raise TypeError(f"{_EXPECTED}, got {shard!r:.80}.") from error
    return Shard(**pairs)


def _of_environment() -> Part:
    for names in _VARIABLES.values():
        if set(names) <= os.environ.keys():
            i, n = _whole_numbers(*names)
            return _of_array(i, n) if names[0].startswith(_ARRAY) else (i, n)
    known = ", ".join(f"{name} ({', '.join(names)})" for name, names in _VARIABLES.items())
    raise ValueError(f'shard="env" found none of {known} in the environment. Pass shard=(i, N).')


def _of_array(task: int, count: int) -> Part:
    """Return the shard of a task of an array of all shards; where some are submitted again, Slurm counts only those."""
    given = [name for name in (f"{_ARRAY}_MIN", f"{_ARRAY}_MAX") if name in os.environ]
    low, high = _whole_numbers(*given) if len(given) == 2 else (0, count - 1)
    if count == 1 or low > 1 or high - low + 1 != count:
        raise ValueError(
            f'shard="env" expected a Slurm array 0-(N-1) or 1-N of all N > 1 shards, got task {task} of {count} from '
            f"{low} to {high}. If these are submitted again, Slurm no longer says how many shards there are: pass "
            "shard=(i, N)."
        )
    return task - low, count


def _whole_numbers(*names: str) -> list[int]:
    values = [os.environ[name] for name in names]
    try:
        return [int(value) for value in values]
    except ValueError as error:
        raise ValueError(f"expected whole numbers in {' and '.join(names)}, got {values}.") from error
