"""Every analysis of one network, in one tree and so in one file."""

from __future__ import annotations

from collections.abc import Iterable

import xarray as xr
from torch import nn

from resnet_lesion.data import Data, refuse_one_shot
from resnet_lesion.deletion import Deletion
from resnet_lesion.network import ResidualNetwork, wrap
from resnet_lesion.reorder import Reorder


def study(
    model: nn.Module | ResidualNetwork,
    data: Data,
    *,
    n_deleted: int | Iterable[int] | None = None,
    n_swaps: int | Iterable[int] = range(1, 25),
    n_draws: int = 10,
    seed: int = 0,
    show_progress: bool = True,
) -> xr.DataTree:
    """Run all analyzers, as the paper does.

    Args:
        model: A model with known residual blocks.
        data: A tuple ``(inputs, targets)`` or an iterable of such batches that can be gone through several times.
        n_deleted: How many blocks to delete at random; None for 1 to 20, or to one less than all of them.
        n_swaps: How many pairs of blocks to swap.
        n_draws: Number of random repetitions of each.
        seed: Seed of everything random.
        show_progress: Show progress bars.

    Returns:
        A DataTree with a group each: ``deletion`` (each block alone), ``random_deletion``, ``reorder``.

    Raises:
        TypeError: If the data is a one-shot iterator, or of the wrong kind.
        ValueError: If the data does not fit the model, or a number is out of bounds.
    """
    network = wrap(model)
    refuse_one_shot(data)
    if n_deleted is None:
        n_deleted = range(1, min(20, len(network) - 1) + 1)
    deletion, reorder = Deletion(network), Reorder(network)
    return xr.DataTree.from_dict(
        {
            "deletion": deletion.analyze(data, show_progress=show_progress),
            "random_deletion": deletion.analyze(
                data, n_deleted=n_deleted, n_draws=n_draws, seed=seed, show_progress=show_progress
            ),
            "reorder": reorder.analyze(data, n_swaps=n_swaps, n_draws=n_draws, seed=seed, show_progress=show_progress),
        }
    )
