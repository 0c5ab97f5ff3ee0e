"""Which work order rows share: the trie of their prefixes, level by level."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from resnet_lesion.network.orders import DELETED, IntArray


@dataclass(frozen=True)
class Fork:
    """The streams that go through one block (or none, -1) at one position, as runs of neighbouring parents."""

    block: int
    runs: tuple[tuple[int, int], ...]


class Plan:
    """How a set of order rows shares prefixes: their trie, level by level.

    Args:
        orders: (n_rows, n_blocks) order rows.

    Attributes:
        forks: At each position, the forks in the order in which their outputs are stacked.
        n_streams: Number of streams before each position, and after the last: n_blocks + 1 entries.
        stream: (n_rows,) the final stream of each row.
        block_evaluations: Number of distinct (prefix, block) pairs, deleted positions not counted.
    """

    def __init__(self, orders: IntArray) -> None:
        self.stream: IntArray = np.zeros(len(orders), dtype=np.int64)
        self.forks: list[tuple[Fork, ...]] = []
        self.n_streams = [1]
        self.block_evaluations = 0
        for column in orders.T:
            # sorted by block, then parent, so that what one block computes is stacked together
            pairs, stream = np.unique(np.stack([column, self.stream], axis=1), axis=0, return_inverse=True)
            self.stream = stream.reshape(-1)
            self.forks.append(
                tuple(Fork(int(block), _runs(pairs[pairs[:, 0] == block, 1])) for block in np.unique(pairs[:, 0]))
            )
            self.n_streams.append(len(pairs))
            self.block_evaluations += int((pairs[:, 0] != DELETED).sum())
        self._on_device: Tensor | None = None

    def stream_on(self, device: torch.device) -> Tensor:
        """Return ``stream`` on a device; copied there once, as every pass would wait for a copy of its own."""
        if self._on_device is None or self._on_device.device != device:
            self._on_device = torch.as_tensor(self.stream, device=device)
        return self._on_device


def _runs(parents: NDArray[np.int64]) -> tuple[tuple[int, int], ...]:
    breaks = np.flatnonzero(np.diff(parents) != 1) + 1
    return tuple((int(run[0]), int(run[-1]) + 1) for run in np.split(parents, breaks))
