"""How many activations, and gradients of images, memory holds at once."""

from __future__ import annotations

import numpy as np
import torch

from resnet_lesion.network.residual_network import ResidualNetwork, Trace

_DEVICE_SHARE = 0.5

# On a CPU, tensors of a few dozen MiB are fastest: larger ones fall out of the caches and are paged in again each time.
_GRADIENT_CPU_BYTES = 2**27

# Carrying gradients through a block keeps about this many tensors alive for each of them.
_LIVE_PER_GRADIENT = 4


def memory_budget(network: ResidualNetwork, cpu_bytes: int) -> int:
    """Return how many bytes of activations to hold at once: a fraction of a GPU's free memory, or ``cpu_bytes``."""
    if network.device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(network.device)
        # memory that torch keeps to use again is free too
        kept = torch.cuda.memory_reserved(network.device) - torch.cuda.memory_allocated(network.device)
        return int(_DEVICE_SHARE * (free + kept))
    return cpu_bytes


def gradient_capacity(network: ResidualNetwork, trace: Trace, memory_limit: int | None) -> int:
    """Return how many gradients of one image may be carried through the network at once; at least one.

    Args:
        network: The network.
        trace: The shapes of the blocks' inputs and outputs.
        memory_limit: Roughly how many bytes to use at most; None for a default.

    Raises:
        ValueError: If the limit is not positive.
    """
    if memory_limit is not None and memory_limit < 1:
        raise ValueError(f"expected memory_limit in bytes, at least 1, or None, got {memory_limit}.")
    budget = memory_budget(network, _GRADIENT_CPU_BYTES) if memory_limit is None else memory_limit
    largest = max(np.prod(shape) for shape in (*trace.input_shapes, *trace.output_shapes))
    # they are carried in float32 at least
    bytes_of_one = int(_LIVE_PER_GRADIENT * largest * max(4, trace.output.element_size()))
    return max(1, budget // bytes_of_one)
