"""A lesion sweep: count what a network gets right under each of many lesions, in one pass over the data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, TypeAlias, TypedDict

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from resnet_lesion.engines.chunking import Chunks
from resnet_lesion.network.classes import number_of_classes
from resnet_lesion.network.orders import DELETED, IntArray, whole
from resnet_lesion.network.residual_network import Trace
from resnet_lesion.network.shapes import check_fit
from resnet_lesion.results.lesions import Counts, lesion_dataset, order_variable
from resnet_lesion.results.provenance import layer_coords
from resnet_lesion.runs.data import IGNORE_INDEX, Data
from resnet_lesion.runs.run import Run, Seen
from resnet_lesion.warning import warn

Lesions: TypeAlias = IntArray | Callable[[Trace], IntArray]
"""(n_lesions, n_blocks) order rows, or a function that makes them once the blocks' shapes are known."""


_NOTHING = -1  # no class's number


class SweepOptions(TypedDict):
    """How to count: what every sweep takes and no analyzer looks at."""

    by_class: bool
    perturbations_per_eval: int | None


def sweep(
    run: Run,
    data: Data,
    lesions: Lesions,
    coords: Mapping[str, Iterable[Any]],
    *,
    layers_along: Literal["layer", "position"],
    by_class: bool,
    perturbations_per_eval: int | None,
) -> tuple[xr.Dataset, Seen]:
    """Count under each lesion, and lay out the counts with what follows from them.

    Args:
        run: The run.
        data: The data.
        lesions: The lesions.
        coords: The dimensions that they are laid out over, with their coordinates; the last one varies fastest.
        layers_along: The dimension of the blocks' names and stages. With "position", each lesion's ``order`` is added.
        by_class: Count for each class too.
        perturbations_per_eval: The largest number of lesions in one forward pass; None for what memory holds.

    Returns:
        The Dataset, for :meth:`Run.finish` once it is complete, and what the pass has seen.
    """
    counts, seen = _count(run, data, lesions, perturbations_per_eval)
    dataset = lesion_dataset(counts, coords, by_class=by_class)
    if layers_along == "position":
        dataset["order"] = order_variable(dataset.correct.dims, counts.rows[1:].reshape(*dataset.correct.shape, -1))
    return dataset.assign_coords(layer_coords(run.network, layers_along)), seen


def _count(run: Run, data: Data, lesions: Lesions, perturbations_per_eval: int | None) -> tuple[Counts, Seen]:
    """Iterate over the data once and count, for the whole network and each lesion."""
    network = run.network
    with run.pass_over(data) as pass_, torch.no_grad():
        trace = pass_.proof.trace
        n_classes = number_of_classes(network.model, trace.output)
        rows = lesions(trace) if callable(lesions) else lesions
        check_fit(network, rows, trace)
        chosen = run.shard.lesion_numbers(rows)
        # the whole network first, to compare with
        counted = np.concatenate([whole(len(network))[None], rows[chosen]])
        chunks = Chunks(network, counted, pass_.proof, perturbations_per_eval, n_reference=1)
        tally = _Tally(len(counted), n_classes, network.device)
        for inputs, targets in pass_.batches(vars(tally), n_classes):
            for some, labels in chunks.split(inputs, targets):
                tally.add(chunks.outputs(network.to_device(some)), labels)
                pass_.progress.update(len(some))
        # the whole network agrees with itself on every image but those for which it predicts nothing
        if nothing := pass_.seen.total - int(tally.agreeing[0]):
            warn(
                f"the whole network gives NaN or infinity for {nothing} of {pass_.seen.total} images: they leave the "
                "range of its dtype, and count as errors. Check these images and their normalisation, or use "
                "model.float()."
            )
    places = np.concatenate([[0], chosen + 1])
    evaluated = np.zeros(len(rows) + 1, dtype=bool)
    evaluated[places] = True

    def spread(values: Tensor) -> NDArray[Any]:
        result = np.zeros((len(evaluated), *values.shape[1:]), dtype=values.cpu().numpy().dtype)
        result[places] = values.cpu().numpy()
        return result

    counts = Counts(
        rows=np.concatenate([counted[:1], rows]),
        evaluated=evaluated if run.shard.lesions[1] > 1 else None,
        correct_by_class=spread(tally.correct_by_class),
        agreeing=spread(tally.agreeing),
        loss=spread(tally.loss) / pass_.seen.total,
        total_by_class=tally.total_by_class.cpu().numpy(),
        block_evaluations=chunks.block_evaluations,
        naive_block_evaluations=int((rows[chosen] != DELETED).sum()),
    )
    return counts, pass_.seen


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
            # where numbers overflow nothing is predicted: argmax would take the first NaN or infinity for a class
            predictions[rows] = logits.argmax(2).where((logits < torch.inf).all(2), _NOTHING)
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
