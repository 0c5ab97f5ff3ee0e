"""Which blocks can stand in which places: those whose inputs and outputs have the same shapes."""

from __future__ import annotations

from itertools import combinations

import numpy as np

from resnet_lesion.network.orders import IntArray
from resnet_lesion.network.residual_network import ResidualNetwork, Trace


def check_fit(network: ResidualNetwork, rows: IntArray, trace: Trace) -> None:
    """Refuse rows that put a block where its input or output has another shape.

    Raises:
        ValueError: If they do.
    """
    kinds = _kinds(trace)
    for position, column in enumerate(rows.T):
        for block in np.unique(column[column >= 0]):
            if kinds[block] != kinds[position]:
                raise ValueError(
                    f"block {network.layers[block]!r} ({_arrow(kinds[block])}) cannot run in the place of "
                    f"{network.layers[position]!r} ({_arrow(kinds[position])}): reorder blocks of the same shapes only."
                )


def swappable_pairs(network: ResidualNetwork, trace: Trace) -> IntArray:
    """Return the pairs of blocks with identity shortcuts and the same shapes, (n_pairs, 2)."""
    kinds = _kinds(trace)
    movable = np.flatnonzero(~network.is_downsampling)
    pairs = [pair for pair in combinations(movable.tolist(), 2) if kinds[pair[0]] == kinds[pair[1]]]
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def _kinds(trace: Trace) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    return [*zip(trace.input_shapes, trace.output_shapes, strict=True)]


def _arrow(kind: tuple[tuple[int, ...], tuple[int, ...]]) -> str:
    before, after = ("x".join(map(str, shape)) for shape in kind)
    return f"{before} to {after}"
