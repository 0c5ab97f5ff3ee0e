"""Count what a network gets right under each of many lesions, in one pass over the data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from resnet_lesion.chunking import Chunks
from resnet_lesion.data import Data, batches, defects, describe, length, refuse_defects
from resnet_lesion.intervals import wilson_interval
from resnet_lesion.network import ResidualNetwork, Trace, wrap
from resnet_lesion.orders import DELETED, IntArray, as_orders, whole
from resnet_lesion.results import layer_coords, provenance, variable


@dataclass(frozen=True)
class Counts:
    """What was counted under each row; row 0 is the whole network, the others are the lesions."""

    rows: IntArray
    correct: IntArray
    loss: NDArray[np.float64]
    agreement: IntArray
    correct_by_class: IntArray
    total_by_class: IntArray
    block_evaluations: int
    naive_block_evaluations: int
    data: str

    @property
    def total(self) -> int:
        """Number of images."""
        return int(self.total_by_class.sum())


def evaluate(
    model: nn.Module | ResidualNetwork,
    data: Data,
    orders: ArrayLike,
    *,
    by_class: bool = False,
    perturbations_per_eval: int | None = None,
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
    counts = count(network, data, rows, perturbations_per_eval, show_progress)
    dataset = lesion_dataset(network, counts, ("lesion",), {"lesion": np.arange(len(rows))}, by_class=by_class)
    dataset["order"] = order_variable(("lesion",), rows)
    dataset = dataset.assign_coords(layer_coords(network, "position"))
    options = {"by_class": by_class, "perturbations_per_eval": perturbations_per_eval}
    return provenance(dataset, network, "Error of a residual network under lesions", options)


def count(
    network: ResidualNetwork,
    data: Data,
    lesions: IntArray | Callable[[Trace], IntArray],
    perturbations_per_eval: int | None,
    show_progress: bool,
) -> Counts:
    """Go through the data once and count, for the whole network and each lesion.

    Args:
        network: The network.
        data: The data.
        lesions: (n_lesions, n_blocks) order rows, or a function that makes them once the blocks' shapes are known.
        perturbations_per_eval: The largest number of rows in one forward pass; None for what memory holds.
        show_progress: Show a progress bar.
    """
    tally: _Tally | None = None
    with (
        network.isolated(),
        torch.no_grad(),
        tqdm(total=length(data), unit="image", disable=not show_progress, desc="lesions") as progress,
    ):
        for inputs, targets in batches(data):
            if tally is None:
                tally = _Tally(network, inputs, lesions, perturbations_per_eval)
            tally.add(inputs, targets, progress)
    assert tally is not None  # batches() refuses empty data
    return tally.result(data)


class _Tally:
    """Counts that accumulate on the device, without synchronising per batch."""

    def __init__(
        self,
        network: ResidualNetwork,
        inputs: Tensor,
        lesions: IntArray | Callable[[Trace], IntArray],
        perturbations_per_eval: int | None,
    ) -> None:
        trace = network.trace(inputs[:1])
        if trace.output.ndim != 2:
            raise ValueError(f"expected logits (N, classes) from the model, got {tuple(trace.output.shape)}.")
        rows = lesions(trace) if callable(lesions) else lesions
        check_fit(network, rows, trace)
        self.rows = np.concatenate([whole(len(network))[None], rows])
        self.network, self.shape = network, tuple(inputs.shape[1:])
        self.chunks = Chunks(network, self.rows, trace, perturbations_per_eval, n_reference=1)
        device, n, self.n_classes = network.device, len(self.rows), trace.output.shape[1]
        self.correct_by_class = torch.zeros(n, self.n_classes, dtype=torch.int64, device=device)
        self.total_by_class = torch.zeros(self.n_classes, dtype=torch.int64, device=device)
        self.agreement = torch.zeros(n, dtype=torch.int64, device=device)
        self.loss = torch.zeros(n, dtype=torch.float32 if device.type == "mps" else torch.float64, device=device)
        self.defects = torch.zeros(2, dtype=torch.bool, device=device)

    def add(self, batch_inputs: Tensor, batch_targets: Tensor, progress: tqdm[Any]) -> None:
        if tuple(batch_inputs.shape[1:]) != self.shape:
            raise ValueError(
                f"expected every batch of inputs to be (N, {', '.join(map(str, self.shape))}) like the first, "
                f"got {tuple(batch_inputs.shape)}."
            )
        for inputs, targets in self.chunks.split(batch_inputs, batch_targets):
            found = defects(inputs, targets, self.n_classes)
            if found.device.type == "cpu":
                refuse_defects(found, self.n_classes)
            self.defects |= found.to(self.network.device, non_blocking=True)
            device_targets = targets.to(self.network.device, non_blocking=True).clamp(0, self.n_classes - 1)
            self._add(self.network.to_device(inputs), device_targets)
            progress.update(len(inputs))

    def _add(self, inputs: Tensor, targets: Tensor) -> None:
        self.total_by_class += torch.bincount(targets, minlength=self.n_classes)
        predictions = torch.empty(len(self.rows), len(inputs), dtype=torch.int64, device=inputs.device)
        for logits, chosen in self.chunks.outputs(inputs):
            rows = torch.as_tensor(chosen, device=inputs.device)
            predictions[rows] = logits.argmax(2)
            logits = logits if logits.dtype == torch.float64 else logits.float()
            losses = F.cross_entropy(logits.flatten(0, 1), targets.repeat(len(rows)), reduction="none")
            self.loss[rows] += losses.reshape(len(rows), -1).sum(1, dtype=self.loss.dtype)
        self.correct_by_class.index_add_(1, targets, (predictions == targets).long())
        self.agreement += (predictions == predictions[0]).sum(1)

    def result(self, data: Data) -> Counts:
        refuse_defects(self.defects, self.n_classes)
        total = int(self.total_by_class.sum())
        return Counts(
            rows=self.rows,
            correct=self.correct_by_class.sum(1).cpu().numpy(),
            loss=self.loss.double().cpu().numpy() / total,
            agreement=self.agreement.cpu().numpy(),
            correct_by_class=self.correct_by_class.cpu().numpy(),
            total_by_class=self.total_by_class.cpu().numpy(),
            block_evaluations=self.chunks.block_evaluations,
            naive_block_evaluations=int((self.rows[1:] != DELETED).sum()),
            data=describe(data, total, self.shape),
        )


def check_fit(network: ResidualNetwork, rows: IntArray, trace: Trace) -> None:
    """Refuse rows that put a block where its input or output has another shape.

    Raises:
        ValueError: If they do.
    """
    kinds = [*zip(trace.input_shapes, trace.output_shapes, strict=True)]
    for position, column in enumerate(rows.T):
        for block in np.unique(column[column >= 0]):
            if kinds[block] != kinds[position]:
                raise ValueError(
                    f"block {network.layers[block]!r} ({_arrow(kinds[block])}) cannot run in the place of "
                    f"{network.layers[position]!r} ({_arrow(kinds[position])}): reorder blocks of the same shapes only."
                )


def lesion_dataset(
    network: ResidualNetwork,
    counts: Counts,
    dims: Sequence[str],
    coords: Mapping[str, Iterable[Any]],
    *,
    by_class: bool,
) -> xr.Dataset:
    """Lay counts out over the given dimensions, with what follows from them."""
    arrays = {dim: np.array(list(values)) for dim, values in coords.items()}
    shape = [len(arrays[dim]) for dim in dims]

    def over(values: NDArray[Any]) -> NDArray[Any]:
        return values[1:].reshape(shape + list(values.shape[1:]))

    total = counts.total
    low, high = wilson_interval(total - counts.correct, total)
    dataset = xr.Dataset(
        {
            "correct": variable(dims, over(counts.correct), "images classified correctly"),
            "loss": variable(dims, over(counts.loss), "mean cross-entropy", "nat"),
            "agreement": variable(
                dims, over(counts.agreement / total), "share of images predicted as by the whole network"
            ),
            "error": variable(dims, over(1 - counts.correct / total), "error"),
            "error_low": variable(dims, over(low), "error, lower end of its 95 % Wilson interval"),
            "error_high": variable(dims, over(high), "error, upper end of its 95 % Wilson interval"),
            "total": variable((), total, "images"),
            "baseline_correct": variable((), counts.correct[0], "images the whole network classifies correctly"),
            "baseline_error": variable((), 1 - counts.correct[0] / total, "error of the whole network"),
            "baseline_loss": variable((), counts.loss[0], "mean cross-entropy of the whole network", "nat"),
        },
        coords=arrays,
    )
    if by_class:
        dataset["correct_by_class"] = variable(
            (*dims, "class"), over(counts.correct_by_class), "images of the class classified correctly"
        )
        dataset["total_by_class"] = variable(("class",), counts.total_by_class, "images of the class")
        dataset = dataset.assign_coords({"class": np.arange(len(counts.total_by_class))})
    dataset.attrs |= {
        "block_evaluations": counts.block_evaluations,
        "naive_block_evaluations": counts.naive_block_evaluations,
        "n_classes": len(counts.total_by_class),
        "data": counts.data,
    }
    return dataset


def order_variable(dims: Sequence[str], rows: IntArray) -> xr.Variable:
    """Return order rows as a variable over the given dimensions and ``position``."""
    return variable((*dims, "position"), rows, "index of the block that runs at the position, -1 for none")


def _arrow(kind: tuple[tuple[int, ...], tuple[int, ...]]) -> str:
    before, after = ("x".join(map(str, shape)) for shape in kind)
    return f"{before} to {after}"
