"""How many gradients memory holds."""

import pytest
import torch
from helpers import models

import resnet_lesion as rl
from resnet_lesion.engines.memory import gradient_capacity


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_capacity_follows_from_the_widest_block(dtype):
    network = rl.wrap(models.build(dtype=dtype))
    trace = network.trace(models.images(1, dtype=dtype))
    widest = max(torch.Size(shape).numel() for shape in (*trace.input_shapes, *trace.output_shapes))
    of_one = 4 * widest * max(4, dtype.itemsize)  # carried in float32 at least
    found = [gradient_capacity(network, trace, limit) for limit in (1, of_one, 2 * of_one - 1, 2 * of_one, 7 * of_one)]
    assert found == [1, 1, 1, 2, 7]
    assert gradient_capacity(network, trace, None) > 7


def test_a_limit_that_is_none_is_refused():
    network = rl.wrap(models.build())
    with pytest.raises(ValueError, match="expected memory_limit in bytes, at least 1, or None, got 0"):
        gradient_capacity(network, network.trace(models.images(1)), 0)
