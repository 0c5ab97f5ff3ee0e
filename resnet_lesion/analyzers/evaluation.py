"""Evaluate a network under any lesions."""

from __future__ import annotations

import os

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike
from torch import nn

from resnet_lesion.analyzers.sweep import SweepOptions, sweep
from resnet_lesion.network.orders import as_orders
from resnet_lesion.network.residual_network import ResidualNetwork, wrap
from resnet_lesion.results.provenance import array_hash
from resnet_lesion.runs.data import Data
from resnet_lesion.runs.executors import Executor, over_shards
from resnet_lesion.runs.run import Run, RunOptions
from resnet_lesion.runs.shards import ShardLike


@over_shards
def evaluate(
    model: nn.Module | ResidualNetwork,
    data: Data,
    orders: ArrayLike,
    *,
    by_class: bool = False,
    perturbations_per_eval: int | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    shard: ShardLike = None,
    executor: Executor | None = None,
    n_shards: int | None = None,
    show_progress: bool = True,
) -> xr.Dataset:
    """Evaluate the network under any lesions.

    Every row is evaluated exactly, with the work that rows share done once.

    Args:
        model: A model with known residual blocks.
        data: A tuple ``(inputs, targets)`` or an iterable of such batches: inputs (N, ...), targets (N,) classes.
        orders: (n_lesions, n_blocks) integers: at each position the index of the block that runs there, or -1 (deleted:
            only the shortcut and what follows the addition run). A block may occur several times.
        by_class: Count for each class too (``correct_by_class``, ``total_by_class``).
        perturbations_per_eval: The largest number of lesions in one forward pass; None for what memory holds.
        checkpoint: A folder to keep finished work in; a run that was stopped resumes from there.
        shard: Which part to do, (i, N) for every N-th image from the i-th on; :func:`merge` puts all N together.
        executor: Where to run all ``n_shards`` parts; anything with the interface of ``concurrent.futures``.
        n_shards: How many parts to cut the images into for the executor.
        show_progress: Show a progress bar.

    Returns:
        A Dataset over ``lesion`` with ``correct`` images, mean cross-entropy ``loss`` in nats, ``agreement`` (the
        fraction of images on which the prediction is that of the whole network), ``error`` with its 95 % Wilson
        interval ``error_low``, ``error_high``, ``order`` (lesion, position), and the scalars ``total``,
        ``baseline_correct``, ``baseline_error``, ``baseline_loss`` of the whole network. ``attrs["block_evaluations"]``
        is the number of blocks computed per image for these rows, ``attrs["naive_block_evaluations"]`` what one pass
        per row computes.

    Raises:
        TypeError: If the model or the data is of the wrong kind.
        AdapterError: If a block is not what its adapter says, or the engine's outputs are not the model's.
        ValueError: If an order row or the labels do not fit the model.

    Example:
        >>> import numpy as np, resnet_lesion as rl, timm, torch
        >>> model = timm.create_model("resnet18", num_classes=10, zero_init_last=False)
        >>> data = torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 3])
        >>> skip_each = np.where(np.eye(8, dtype=bool), -1, np.arange(8))
        >>> result = rl.evaluate(model, data, skip_each, show_progress=False)
        >>> dict(result.sizes), int(result.total)
        ({'lesion': 8, 'position': 8}, 4)
    """
    network = wrap(model)
    rows = as_orders(orders, len(network))
    counting: SweepOptions = {"by_class": by_class, "perturbations_per_eval": perturbations_per_eval}
    how: RunOptions = {"shard": shard, "checkpoint": checkpoint, "show_progress": show_progress}
    options = {"orders_sha256": array_hash(rows), **counting}
    run = Run(network, "evaluation", "Error of a residual network under lesions", options, **how)
    dataset, seen = sweep(run, data, rows, {"lesion": np.arange(len(rows))}, layers_along="position", **counting)
    return run.finish(dataset, seen)
