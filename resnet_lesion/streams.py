"""The forward engine: many lesions in one forward pass, with every shared prefix computed once.

Lesions that agree on their first positions share that work. While the model runs its own forward, each position holds
one stream of activations per distinct prefix, stacked along the batch; a stream forks where order rows diverge, and
passes through whichever block its rows name. The number of blocks computed is then the number of distinct
(prefix, block) pairs, which no exact evaluation can undercut.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from resnet_lesion.block import Forward, replaced_forwards
from resnet_lesion.errors import AdapterError
from resnet_lesion.forward_pass import check_run_order, overwrites_input, version_of
from resnet_lesion.network import ResidualNetwork
from resnet_lesion.orders import DELETED, IntArray


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
        """Return ``stream`` on a device; copied there once, as a copy for every pass would wait for it."""
        if self._on_device is None or self._on_device.device != device:
            self._on_device = torch.as_tensor(self.stream, device=device)
        return self._on_device


def forward_lesions(network: ResidualNetwork, plan: Plan, inputs: Tensor, *args: object) -> Tensor:
    """Run one forward pass of the model under every lesion of the plan.

    Args:
        network: The network, on the inputs' device and in eval mode.
        plan: The lesions.
        inputs: (N, ...) inputs.
        *args: Further arguments of the model.

    Returns:
        (n_rows, N, ...) outputs.

    Raises:
        AdapterError: If the model does not run its blocks once each in order with the batch in the first dimension,
            or a block overwrites its input.
    """
    n, whole, ran = len(inputs), network.forwards(), list[int]()

    def through(i: int, fork: Fork, x: Tensor) -> Tensor:
        if len(fork.runs) == 1:
            start, stop = fork.runs[0]
            chosen = x[start * n : stop * n]
        else:
            chosen = torch.cat([x[start * n : stop * n] for start, stop in fork.runs])
        return network.blocks[i].without_branch(chosen) if fork.block == DELETED else whole[fork.block](chosen)

    def at(i: int) -> Forward:
        block, forks, n_streams = network.blocks[i], plan.forks[i], plan.n_streams[i]

        def forward(x: Tensor) -> Tensor:
            ran.append(i)
            if ran[-1] != len(ran) - 1:
                check_run_order(ran, network.layers)
            if x.shape[0] != n_streams * n:
                raise AdapterError(
                    f"expected {n_streams} x {n} rows at block {block.layer!r}, got {x.shape[0]}: the model changes "
                    "its batch dimension between the blocks, so lesions cannot be stacked along it."
                )
            version = version_of(x)
            outputs = [through(i, fork, x) for fork in forks]
            if version_of(x) != version:
                raise overwrites_input(block)
            return outputs[0] if len(outputs) == 1 else torch.cat(outputs)

        return forward

    with replaced_forwards({block.module: at(i) for i, block in enumerate(network.blocks)}):
        output = network.model(inputs, *args)
    check_run_order(ran, network.layers)
    if not isinstance(output, Tensor) or output.shape[:1] != (plan.n_streams[-1] * n,):
        got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise AdapterError(
            f"expected one tensor with {plan.n_streams[-1]} x {n} rows from the model, got {got}: it changes its batch "
            "dimension behind the blocks."
        )
    streams = output.reshape(-1, n, *output.shape[1:])
    return streams[plan.stream_on(output.device)]


def _runs(parents: NDArray[np.int64]) -> tuple[tuple[int, int], ...]:
    breaks = np.flatnonzero(np.diff(parents) != 1) + 1
    return tuple((int(run[0]), int(run[-1]) + 1) for run in np.split(parents, breaks))
