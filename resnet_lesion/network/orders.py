"""Lesions as integer rows: at each position the index of the block that runs there, or -1 for a deleted one.

A random draw depends on nothing but its seed and its own coordinates, so that any one of them can be drawn again alone,
on any device and in any shard.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

DELETED = -1


IntArray = NDArray[np.int64]


def as_orders(orders: object, n_blocks: int) -> IntArray:
    """Check order rows and return them as a new (n_lesions, n_blocks) integer array.

    Raises:
        ValueError: If the shape is not (n_lesions, n_blocks), or an entry is neither -1 nor a block's index.
        TypeError: If the entries are not integers.
    """
    try:
        rows = np.asarray(orders)
    except ValueError as error:
        raise ValueError(f"expected order rows of {n_blocks} entries each, got rows of different lengths.") from error
    if rows.ndim != 2 or rows.shape[1] != n_blocks or not rows.shape[0]:
        raise ValueError(
            f"expected order rows as an array (n_lesions, {n_blocks}), a column per block, got shape {rows.shape}."
        )
    if not np.issubdtype(rows.dtype, np.integer):
        raise TypeError(f"expected integer order rows, got {rows.dtype}.")
    if rows.min() < DELETED or rows.max() >= n_blocks:
        wrong = rows[(rows < DELETED) | (rows >= n_blocks)][0]
        raise ValueError(f"expected block indices from 0 to {n_blocks - 1}, or -1 for a deleted block, got {wrong}.")
    return rows.astype(np.int64)


def whole(n_blocks: int) -> IntArray:
    """Return the (n_blocks,) row of the network as it is."""
    return np.arange(n_blocks)


def delete_each(n_blocks: int) -> IntArray:
    """Return (n_blocks, n_blocks) rows: in row i, block i alone is deleted."""
    rows = np.tile(whole(n_blocks), (n_blocks, 1))
    np.fill_diagonal(rows, DELETED)
    return rows


def delete_random(n_blocks: int, n_deleted: int, *, seed: int, draw: int) -> IntArray:
    """Return an (n_blocks,) row with a uniformly drawn subset of ``n_deleted`` blocks deleted."""
    row = whole(n_blocks)
    row[generator(seed, n_deleted, draw).choice(n_blocks, n_deleted, replace=False)] = DELETED
    return row


def swap_random(pairs: ArrayLike, n_blocks: int, n_swaps: int, *, seed: int, draw: int) -> IntArray:
    """Return an (n_blocks,) row after ``n_swaps`` swaps, one after another, of uniformly drawn pairs of positions.

    Args:
        pairs: (n_pairs, 2) positions that may be swapped.
        n_blocks: Number of blocks.
        n_swaps: Number of swaps; the same pair may occur twice.
        seed: Seed of the whole experiment.
        draw: Number of this repetition.
    """
    row, pairs = whole(n_blocks), np.asarray(pairs)
    for a, b in pairs[generator(seed, n_swaps, draw).integers(len(pairs), size=n_swaps)]:
        row[[a, b]] = row[[b, a]]
    return row


def generator(seed: int, *coordinates: int) -> np.random.Generator:
    """Return a separate generator for a seed and the coordinates of what is drawn.

    Raises:
        TypeError: If the seed is not an integer; None would draw differently each time.
        ValueError: If it is negative.
    """
    if not isinstance(seed, int | np.integer):
        raise TypeError(f"expected seed to be an integer, got {seed!r:.60}.")
    if seed < 0:
        raise ValueError(f"expected seed >= 0, got {seed}.")
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=coordinates))
