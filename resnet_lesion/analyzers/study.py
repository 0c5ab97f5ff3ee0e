"""Every analysis of one network, in one tree and so in one file."""

from __future__ import annotations

import os
from collections.abc import Iterable

import torch
import xarray as xr
from torch import Tensor, nn

from resnet_lesion.analyzers.block_statistics import BlockStatistics
from resnet_lesion.analyzers.deletion import Deletion
from resnet_lesion.analyzers.path_gradient import PathGradient
from resnet_lesion.analyzers.reorder import Reorder
from resnet_lesion.engines.linearization import Linearization
from resnet_lesion.errors import PathsError
from resnet_lesion.network.isolation import reserved
from resnet_lesion.network.residual_network import ResidualNetwork, wrap
from resnet_lesion.network.shapes import swappable_pairs
from resnet_lesion.results.gradients import effective_of_study
from resnet_lesion.runs.data import Data, first_images, refuse_one_shot
from resnet_lesion.runs.executors import Executor, over_shards
from resnet_lesion.runs.run import RunOptions
from resnet_lesion.runs.shards import ShardLike, as_shard
from resnet_lesion.warning import warn


@over_shards
def study(
    model: nn.Module | ResidualNetwork,
    data: Data,
    *,
    gradient_data: Data | None = None,
    n_deleted: int | Iterable[int] | None = None,
    n_swaps: int | Iterable[int] = range(1, 25),
    n_draws: int = 10,
    n_paths: int = 100,
    n_gradient_images: int | None = 128,
    seed: int = 0,
    checkpoint: str | os.PathLike[str] | None = None,
    shard: ShardLike = None,
    executor: Executor | None = None,
    n_shards: int | None = None,
    show_progress: bool = True,
) -> xr.DataTree:
    """Run all analyzers, as the paper does.

    Args:
        model: A model with known residual blocks.
        data: A tuple ``(inputs, targets)`` or an iterable of such batches that can be iterated over several times.
        gradient_data: The images whose gradients are measured, the paper's training images; None for ``data``.
        n_deleted: How many blocks to delete at random; None for 1 to 20, or to one less than all of them.
        n_swaps: How many pairs of blocks to swap.
        n_draws: Number of random repetitions of each.
        n_paths: Number of random paths of each length whose gradients are measured.
        n_gradient_images: On how many of them gradients are measured; None for all. A gradient along each of the paths
            costs far more than a prediction. The first ones are taken, so shuffle data that is sorted by class.
        seed: Seed of everything random.
        checkpoint: A folder to keep finished work in; a run that was stopped resumes from there.
        shard: Which part to do, (i, N) for every N-th image from the i-th on; :func:`merge` puts all N together.
        executor: Where to run all ``n_shards`` parts; anything with the interface of ``concurrent.futures``.
        n_shards: How many parts to cut the images into for the executor.
        show_progress: Show progress bars.

    Returns:
        A DataTree with one group for each analysis: ``deletion`` (each block alone), ``random_deletion``,
        ``path_gradient`` (exact), ``sampled_path_gradient``, ``effective_path``, ``block_statistics``, ``reorder``. A
        shard has no ``effective_path``, which follows from all images; :func:`merge` adds it. Where paths cannot be
        told apart by length, the three groups of paths are left out, with a warning, and where no two blocks can be
        swapped, ``reorder``; where blocks have no skip, ``block_statistics`` too.

    Raises:
        TypeError: If the data is a one-shot iterator, or of the wrong kind.
        AdapterError: If a block is not what its adapter says, or the engine's outputs are not the model's.
        ValueError: If the labels do not fit the model, or a number is out of bounds.

    References:
        Veit, Wilber & Belongie 2016, figures 3 to 7 (arXiv:1605.06431).

    Example:
        >>> import resnet_lesion as rl, timm, torch
        >>> model = timm.create_model("resnet18", num_classes=10, zero_init_last=False)
        >>> data = torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 3])
        >>> tree = rl.study(model, data, n_deleted=[1, 4], n_swaps=[1], n_draws=2, n_paths=2, show_progress=False)
        >>> tree["random_deletion"].error.sizes["n_deleted"], tree["path_gradient"].path_length.values[-1]
        (2, np.int64(8))
    """
    network = wrap(model)
    refuse_one_shot(data)
    gradient_data = data if gradient_data is None else gradient_data
    refuse_one_shot(gradient_data)
    if n_deleted is None:
        n_deleted = range(1, max(1, min(20, len(network) - 1)) + 1)
    if as_shard(shard).lesions != (0, 1):
        raise ValueError(f"expected a shard of the images only, as gradients have no lesions, got {shard}.")
    how: RunOptions = {"shard": as_shard(shard), "checkpoint": checkpoint, "show_progress": show_progress}
    with reserved(network.model, ends_by_itself=True):  # between its analyses too
        with network.isolated():  # iterating over a shuffling loader draws from the global generator
            ((image, _),) = first_images(data, 1)
            twice = torch.cat([image, image])  # some models take no batch of one
            can_swap = len(swappable_pairs(network, network.trace(twice))) > 0
            has_paths = _has_paths(network, twice)
            some = gradient_data if n_gradient_images is None else first_images(gradient_data, n_gradient_images)
        deletion, gradient = Deletion(network), PathGradient(network)
        groups = {
            "deletion": deletion.analyze(data, **how),
            "random_deletion": deletion.analyze(data, n_deleted=n_deleted, n_draws=n_draws, seed=seed, **how),
        }
        if has_paths:
            exact = groups["path_gradient"] = gradient.analyze(some, method="exact", **how)
            sampled = gradient.analyze(some, method="sample", n_draws=n_paths, seed=seed, **how)
            groups["sampled_path_gradient"] = sampled
            if as_shard(shard).is_whole:
                groups["effective_path"] = effective_of_study(sampled, exact)
        if all(branch.skip for branch in network.branches):
            groups["block_statistics"] = BlockStatistics(network).analyze(data, **how)
        if not can_swap:
            warn("no reorderings: no two blocks with identity shortcuts have the same shapes")
        else:
            groups["reorder"] = Reorder(network).analyze(data, n_swaps=n_swaps, n_draws=n_draws, seed=seed, **how)
        return xr.DataTree.from_dict(groups)


def _has_paths(network: ResidualNetwork, image: Tensor) -> bool:
    try:
        Linearization(network, network.to_device(image), lambda output: output.flatten(1).sum(1))
    except PathsError as error:
        warn(f"no path gradients: {error}")
        return False
    return True
