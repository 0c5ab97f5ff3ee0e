"""Cut the work into forward passes that fit into memory, without giving up shared prefixes.

Splitting the images leaves the number of block evaluations per image as it is; splitting the lesions repeats the
prefixes that they shared. So images are split first, and lesions only where the user says so or one image is too many.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from resnet_lesion.checks import as_positive
from resnet_lesion.engines.memory import memory_budget
from resnet_lesion.engines.plan import Plan
from resnet_lesion.engines.proof import Proof
from resnet_lesion.engines.streams import forward_lesions
from resnet_lesion.network.forward_pass import slice_batch
from resnet_lesion.network.orders import IntArray
from resnet_lesion.network.residual_network import ResidualNetwork, Trace

# On a CPU a pass that fits into the caches is faster than a larger one; on an accelerator a larger one is.
_CPU_BYTES = 2**26

_ALL = 2**62


# A block keeps about this many tensors of the size of its input or output alive while it runs.
_LIVE_TENSORS = 6


@dataclass(frozen=True)
class _Chunk:
    """The rows of one forward pass; ``index`` is their numbers on the device, copied there once."""

    rows: IntArray
    plan: Plan
    index: Tensor


class Chunks:
    """Order rows and images, cut into what one forward pass takes.

    Args:
        network: The network, in eval mode.
        orders: (n_rows, n_blocks) order rows.
        proof: What the network showed on the first images.
        perturbations_per_eval: The largest number of rows in one forward pass; None for as many as there are.
        n_reference: How many of the first rows are there for comparison only and not counted as requested work.
    """

    def __init__(
        self,
        network: ResidualNetwork,
        orders: IntArray,
        proof: Proof,
        perturbations_per_eval: int | None = None,
        n_reference: int = 0,
    ) -> None:
        if perturbations_per_eval is not None:
            as_positive("perturbations_per_eval", perturbations_per_eval)
        self._network, self._orders, self._n_reference, self._proof = network, orders, n_reference, proof
        # neighbours in lexicographic order share the longest prefixes
        ranked = np.lexsort(orders.T[::-1])
        size = (perturbations_per_eval or len(ranked)) if proof.stackable else 1
        self._chunks = [self._chunk(ranked[i : i + size]) for i in range(0, len(ranked), size)]
        largest = max(_bytes_per_image(chunk.plan, proof.trace) for chunk in self._chunks)
        self._images = max(1, memory_budget(network, _CPU_BYTES) // largest) if proof.independent else _ALL

    @property
    def block_evaluations(self) -> int:
        """Number of blocks computed per image, over all chunks, reference rows left out."""
        asked = [chunk.rows[chunk.rows >= self._n_reference] for chunk in self._chunks]
        return sum(Plan(self._orders[rows]).block_evaluations for rows in asked)

    def split(self, inputs: Tensor, *others: Tensor) -> Iterator[tuple[Tensor, ...]]:
        """Yield the images of a batch, and what goes with them, as many at a time as :meth:`outputs` takes at once."""
        start = 0
        while start < len(inputs):
            stop = start + self._images  # outputs() may have lowered it
            yield inputs[start:stop], *(other[start:stop] for other in others)
            start = stop

    def outputs(self, inputs: Tensor, *args: object) -> Iterator[tuple[Tensor, Tensor]]:
        """Run every lesion on these images.

        Yields:
            Outputs (n_rows_of_chunk, N, ...) and the numbers of the order rows they belong to, both on the device.
        """
        i = 0
        while i < len(self._chunks):
            chunk = self._chunks[i]
            rows = chunk.rows
            outputs = self._attempt(chunk, inputs, args)
            if outputs is None:
                self._chunks[i : i + 1] = map(self._chunk, (rows[: len(rows) // 2], rows[len(rows) // 2 :]))
                continue
            yield outputs, chunk.index
            i += 1

    def _chunk(self, rows: IntArray) -> _Chunk:
        return _Chunk(rows, Plan(self._orders[rows]), torch.as_tensor(rows, device=self._network.device))

    def _attempt(self, chunk: _Chunk, inputs: Tensor, args: tuple[object, ...]) -> Tensor | None:
        """Run a chunk, halving the images while memory is short; None if one image alone is too many."""
        while True:
            slices = [slice(start, start + self._images) for start in range(0, len(inputs), self._images)]
            try:
                return torch.cat(
                    [self._one_pass(chunk.plan, *slice_batch(some, inputs, *args)) for some in slices], dim=1
                )
            except torch.OutOfMemoryError:
                if (min(self._images, len(inputs)) == 1 and len(chunk.rows) == 1) or not self._proof.independent:
                    raise
            # outside the except clause, whose traceback would keep the activations alive
            torch.cuda.empty_cache()
            if min(self._images, len(inputs)) == 1:
                return None
            self._images = min(self._images, len(inputs)) // 2

    def _one_pass(self, plan: Plan, inputs: Tensor, *args: object) -> Tensor:
        n = len(inputs)
        given = slice_batch(self._proof.at_least(n), inputs, *args)
        with self._proof.one_pass(self._network.model):
            return forward_lesions(self._network, plan, *given, idle_branches=not self._proof.stackable)[:, :n]


def _bytes_per_image(plan: Plan, trace: Trace) -> int:
    positions = zip(plan.n_streams, plan.n_streams[1:], trace.input_shapes, trace.output_shapes, strict=False)
    elements = max(max(before * np.prod(x), after * np.prod(y)) for before, after, x, y in positions)
    return int(_LIVE_TENSORS * elements * trace.output.element_size())
