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
too, or "env" for what torchrun or a Slurm array tells the process; None for the whole run."""


_EXPECTED = 'expected shard as (i, N) with 0 <= i < N, as {"data": (i, N), "lesions": (j, M)} or as "env"'


# (number, count, lowest number) of this process, by what started it
_VARIABLES = {
    "torchrun": ("RANK", "WORLD_SIZE", None),
    "a Slurm array": ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_MIN"),
}


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
    for number, count, lowest in _VARIABLES.values():
        if number in os.environ and count in os.environ:
            values = [os.environ[number], os.environ[count], os.environ.get(lowest or "", "0")]
            try:
                i, n, first = map(int, values)
            except ValueError as error:
                raise ValueError(f"expected whole numbers in {number} and {count}, got {values[:2]}.") from error
            return i - first, n
    known = ", ".join(f"{name} ({', '.join(names[:2])})" for name, names in _VARIABLES.items())
    raise ValueError(f'shard="env" found none of {known} in the environment. Pass shard=(i, N).')
