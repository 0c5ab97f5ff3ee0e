"""How many images, and gradients of them, memory holds at once."""

from __future__ import annotations

import numpy as np
import torch

from resnet_lesion.network.residual_network import ResidualNetwork, Trace

_DEVICE_SHARE = 0.5


def memory_budget(network: ResidualNetwork, cpu_bytes: int) -> int:
    """Return how many bytes of activations to hold at once: a share of a GPU's free memory, or ``cpu_bytes``."""
    if network.device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(network.device)
        # what torch keeps of what it has used before is free too
        kept = torch.cuda.memory_reserved(network.device) - torch.cuda.memory_allocated(network.device)
        return int(_DEVICE_SHARE * (free + kept))
    return cpu_bytes


# On a CPU, tensors of some dozen MiB are fastest: larger ones fall out of the caches and are paged in anew each time.
_CPU_BYTES = 2**27


# Carrying gradients through a block keeps about this many tensors for each of them alive.
_LIVE_TENSORS = 4


def gradient_bytes(trace: Trace) -> int:
    """Return about how many bytes one image's gradient takes on its way through the widest block."""
    largest = max(np.prod(shape) for shape in (*trace.input_shapes, *trace.output_shapes))
    # they are carried in float32 at least
    return int(_LIVE_TENSORS * largest * max(4, trace.output.element_size()))


def gradient_budget(network: ResidualNetwork, memory_limit: int | None) -> int:
    """Return how many bytes the gradients on their way may take.

    Raises:
        ValueError: If the limit is not positive.
    """
    if memory_limit is None:
        return memory_budget(network, _CPU_BYTES)
    if memory_limit < 1:
        raise ValueError(f"expected memory_limit in bytes, at least 1, or None, got {memory_limit}.")
    return memory_limit
