"""Count what a network gets right under each of many lesions, in one pass over the data."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from resnet_lesion.engines.chunking import Chunks, check_fit
from resnet_lesion.network.orders import DELETED, IntArray, as_orders, whole
from resnet_lesion.network.residual_network import ResidualNetwork, Trace, require_logits, wrap
from resnet_lesion.results.lesions import Counts, lesion_dataset, order_variable
from resnet_lesion.results.provenance import array_hash, layer_coords
from resnet_lesion.runs.data import IGNORE_INDEX, Data
from resnet_lesion.runs.executors import Executor, over_shards
from resnet_lesion.runs.run import Run
from resnet_lesion.runs.shards import ShardLike

_NOTHING = -1  # no class's number


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
        orders: (n_lesions, n_blocks) integers: at each position the index of the block that runs there, or -1
            (deleted: only the shortcut and what follows the addition run). A block may come several times.
        by_class: Count for each class too (``correct_by_class``, ``total_by_class``).
        perturbations_per_eval: The largest number of lesions in one forward pass; None for what memory holds.
        checkpoint: A folder to keep what has been done in, to go on from there when stopped.
        shard: Which part to do, (i, N) for every N-th image from the i-th on; :func:`merge` puts all N together.
        executor: Where to do all of ``n_shards`` parts; anything with ``concurrent.futures``' interface.
        n_shards: How many parts to cut the images into for the executor.
        show_progress: Show a progress bar.

    Returns:
        A Dataset over ``lesion`` with ``correct`` images, mean cross-entropy ``loss`` in nats, ``agreement`` (the
        share of images on which the prediction is that of the whole network), ``error`` with its 95 % Wilson interval
        ``error_low``, ``error_high``, ``order`` (lesion, position), and the scalars ``total``, ``baseline_correct``,
        ``baseline_error``, ``baseline_loss`` of the whole network. ``attrs["block_evaluations"]`` is the number of
        blocks computed per image for these rows, ``attrs["naive_block_evaluations"]`` what one pass per row computes.

    Raises:
        TypeError: If the model or the data is of the wrong kind.
        ValueError: If an order row or the data does not fit the model.

    Example:
        >>> import numpy as np, resnet_lesion as rl, timm, torch
        >>> model = timm.create_model("resnet18", num_classes=10)
        >>> data = torch.zeros(4, 3, 32, 32), torch.tensor([0, 1, 2, 3])
        >>> skip_each = np.where(np.eye(8, dtype=bool), -1, np.arange(8))
        >>> result = rl.evaluate(model, data, skip_each, show_progress=False)
        >>> dict(result.sizes), int(result.total)
        ({'lesion': 8, 'position': 8}, 4)
    """
    network = wrap(model)
    rows = as_orders(orders, len(network))
    options = {"orders_sha256": array_hash(rows), "by_class": by_class}
    options |= {"perturbations_per_eval": perturbations_per_eval}
    run = Run(
        network,
        data,
        "evaluation",
        "Error of a residual network under lesions",
        options,
        shard=shard,
        checkpoint=checkpoint,
        show_progress=show_progress,
    )
    counts = count(run, rows, perturbations_per_eval)
    dataset = lesion_dataset(counts, ("lesion",), {"lesion": np.arange(len(rows))}, by_class=by_class)
    dataset["order"] = order_variable(("lesion",), rows)
    return run.finish(dataset.assign_coords(layer_coords(network, "position")))


def count(
    run: Run, lesions: IntArray | Callable[[Trace], IntArray], perturbations_per_eval: int | None = None
) -> Counts:
    """Go through the data once and count, for the whole network and each lesion.

    Args:
        run: The run.
        lesions: (n_lesions, n_blocks) order rows, or a function that makes them once the blocks' shapes are known.
        perturbations_per_eval: The largest number of rows in one forward pass; None for what memory holds.
    """
    network = run.network
    with run.images(run.name.replace("_", " ")) as images, torch.no_grad():
        trace = network.trace(images.first)
        require_logits(trace)
        rows = lesions(trace) if callable(lesions) else lesions
        check_fit(network, rows, trace)
        chosen = run.shard.lesion_numbers(rows)
        # the whole network first, to compare with
        counted = np.concatenate([whole(len(network))[None], rows[chosen]])
        chunks = Chunks(network, counted, trace, perturbations_per_eval, n_reference=1)
        tally = _Tally(len(counted), trace.output.shape[1], network.device)
        for inputs, targets in images.batches(vars(tally), trace.output.shape[1]):
            for some, labels in chunks.split(inputs, targets):
                tally.add(chunks.outputs(network.to_device(some)), labels)
                images.progress.update(len(some))
    places = np.concatenate([[0], chosen + 1])
    evaluated = np.zeros(len(rows) + 1, dtype=bool)
    evaluated[places] = True

    def spread(values: Tensor) -> NDArray[Any]:
        result = np.zeros((len(evaluated), *values.shape[1:]), dtype=values.cpu().numpy().dtype)
        result[places] = values.cpu().numpy()
        return result

    return Counts(
        rows=np.concatenate([counted[:1], rows]),
        evaluated=evaluated if run.shard.lesions[1] > 1 else None,
        correct_by_class=spread(tally.correct_by_class),
        agreeing=spread(tally.agreeing),
        loss=spread(tally.loss) / run.total,
        total_by_class=tally.total_by_class.cpu().numpy(),
        block_evaluations=chunks.block_evaluations,
        naive_block_evaluations=int((rows[chosen] != DELETED).sum()),
    )


class _Tally:
    """Counts that accumulate on the device, without synchronising per batch."""

    def __init__(self, n_rows: int, n_classes: int, device: torch.device) -> None:
        self.correct_by_class = torch.zeros(n_rows, n_classes, dtype=torch.int64, device=device)
        self.total_by_class = torch.zeros(n_classes, dtype=torch.int64, device=device)
        self.agreeing = torch.zeros(n_rows, dtype=torch.int64, device=device)
        self.loss = torch.zeros(n_rows, dtype=torch.float64, device=device)

    def add(self, outputs: Iterable[tuple[Tensor, Tensor]], targets: Tensor) -> None:
        """Count the outputs (n_rows, n, n_classes) of some rows; targets may be IGNORE_INDEX."""
        counted = targets != IGNORE_INDEX
        classes = targets.clamp(min=0)
        predictions = torch.empty(len(self.loss), len(targets), dtype=torch.int64, device=targets.device)
        for logits, rows in outputs:
            # where a lesion makes numbers overflow, nothing is predicted; argmax would take the first NaN for a class
            predictions[rows] = logits.argmax(2).where(~logits.isnan().any(2), _NOTHING)
            logits = logits if logits.dtype == torch.float64 else logits.float()
            losses = F.cross_entropy(
                logits.flatten(0, 1), targets.repeat(len(rows)), reduction="none", ignore_index=IGNORE_INDEX
            )
            self.loss[rows] += losses.reshape(len(rows), -1).sum(1, dtype=torch.float64)
        self.total_by_class.index_add_(0, classes, counted.long())
        self.correct_by_class.index_add_(1, classes, ((predictions == classes) & counted).long())
        # where the whole network predicts nothing there is nothing to agree with
        comparable = counted & (predictions[0] != _NOTHING)
        self.agreeing += ((predictions == predictions[0]) & comparable).sum(1)
