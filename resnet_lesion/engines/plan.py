"""Which work order rows share: the trie of their prefixes, level by level."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations
from math import factorial

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


class Shuffle(Plan):
    """The whole network on rows that change places at every block, one of them twice from the first block on.

    It computes what every row gives alone, unless something in the model mixes rows, or takes them from elsewhere than
    the block before: no two blocks see the rows in the same places, so that then some row comes out wrong.

    Args:
        n_blocks: Number of blocks.

    Attributes:
        n_images: How many images the model is to be given, each in a stream of its own.
        images: (n_rows,) the image in each row of the outputs.
    """

    def __init__(self, n_blocks: int) -> None:
        n_rows = 4
        while factorial(n_rows) // 2 < n_blocks:
            n_rows += 1
        self.n_images = n_rows - 1
        images = (*range(self.n_images), 0)
        places = sorted(set(permutations(images)))
        chosen = np.random.default_rng(0).permutation(len(places))[:n_blocks]
        self.forks, before = [], images[:-1]
        for block, place in enumerate(chosen):
            now = places[place]
            self.forks.append((Fork(block, tuple((parent, parent + 1) for parent in _parents(before, now))),))
            before = now
        self.images: IntArray = np.array(before)
        self.n_streams = [self.n_images] + [n_rows] * n_blocks
        self.stream = np.arange(n_rows)
        self.block_evaluations = n_rows * n_blocks
        self._on_device = None


def _parents(before: tuple[int, ...], now: tuple[int, ...]) -> list[int]:
    """Return from which place before each row comes, each of two rows of one image from another if there are two."""
    places = {image: [i for i, other in enumerate(before) if other == image] for image in before}
    return [places[image].pop() if len(places[image]) > 1 else places[image][0] for image in now]


def _runs(parents: NDArray[np.int64]) -> tuple[tuple[int, int], ...]:
    breaks = np.flatnonzero(np.diff(parents) != 1) + 1
    return tuple((int(run[0]), int(run[-1]) + 1) for run in np.split(parents, breaks))
