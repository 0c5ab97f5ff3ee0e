"""Gradient norms by path length, measured over data: of the sums over all paths, or of single random paths."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import ceil
from typing import Any, Literal

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from resnet_lesion.chunking import memory_budget
from resnet_lesion.data import Data, batches, defects, describe, length, refuse_defects
from resnet_lesion.linearization import Linearization, Objective, full_gradient, path_plan
from resnet_lesion.network import ResidualNetwork, Trace
from resnet_lesion.orders import DELETED, IntArray, draw_path
from resnet_lesion.results import variable

ObjectiveName = Literal["cross_entropy", "score"]
# On a CPU, tensors of some dozen MiB are fastest: larger ones fall out of the caches and are paged in anew each time.
_CPU_BYTES = 2**27
# Carrying gradients through a block keeps about this many tensors for each of them alive.
_LIVE_TENSORS = 4
# Below this many paths at once little of their work is shared.
_FEW_PATHS = 16
# With rtol, draws are taken in rounds, the first of this many, each later one as many as all before it.
_FIRST_ROUND = 32


class Measurement:
    """Batches of data, checked and cut to what memory holds.

    Args:
        network: The network.
        data: The data.
        objective: What is differentiated.
        wrt: The block at whose input the gradients are measured, or None for the model's input.
        memory_limit: Bytes to take at most, roughly; None for what seems right.
        show_progress: Show a progress bar.
    """

    def __init__(
        self,
        network: ResidualNetwork,
        data: Data,
        objective: ObjectiveName,
        wrt: int | None,
        memory_limit: int | None,
        show_progress: bool,
    ) -> None:
        self.network, self.data, self.objective, self.wrt = network, data, objective, wrt
        self.memory_limit, self.show_progress = memory_limit, show_progress
        self.n_images = 0
        self.description = ""

    def pieces(self, n_gradients: Callable[[int], int], progress: tqdm[Any]) -> Iterator[tuple[Tensor, Objective, int]]:
        """Yield (inputs, objective, capacity): how many gradients memory holds for each of these images.

        Args:
            n_gradients: Maps that capacity for one image to the number of gradients wanted at once.
            progress: Is advanced by the images done.
        """
        self.n_images, found, size, n_classes = 0, [], 0, 0
        for inputs, targets in batches(self.data):
            if not size:
                trace = self.network.trace(inputs[:1])
                n_classes, size = trace.output.shape[-1], gradient_bytes(trace)
            found.append(defects(inputs, targets, n_classes))
            if found[-1].device.type == "cpu":
                refuse_defects(found[-1], n_classes)
            capacity = max(1, gradient_budget(self.network, self.memory_limit) // size)
            step = max(1, capacity // n_gradients(capacity))
            for start in range(0, len(inputs), step):
                chosen = self.network.to_device(inputs[start : start + step])
                labels = targets[start : start + step].to(self.network.device).clamp(0, n_classes - 1)
                yield chosen, self._objective(labels), max(1, capacity // len(chosen))
                progress.update(len(chosen))
            self.n_images += len(inputs)
            self.description = describe(self.data, self.n_images, tuple(inputs.shape[1:]))
        for flags in found:
            refuse_defects(flags, n_classes)

    def _objective(self, labels: Tensor) -> Objective:
        if self.objective == "score":
            return lambda logits: logits.gather(1, labels[:, None])[:, 0]
        return lambda logits: F.cross_entropy(logits, labels, reduction="none")

    @property
    def first(self) -> int:
        """The first block on the paths."""
        return self.wrt or 0

    def arrive(self, linear: Linearization, gradients: Tensor) -> Tensor:
        """Carry gradients from the first block's input to where they are measured."""
        return gradients if self.wrt is not None else linear.before(0, gradients)

    def progress(self, description: str) -> tqdm[Any]:
        """Return a progress bar over the images."""
        return tqdm(total=length(self.data), unit="image", disable=not self.show_progress, desc=description)


def exact_norms(run: Measurement, lengths: list[int], per_sample: bool) -> xr.Dataset:
    """Measure the gradient summed over all paths of each length; see ``PathGradient.analyze`` for the variables."""
    network, first, longest = run.network, run.first, lengths[-1]
    n = len(network) - first
    device = network.device
    by_layer = torch.zeros(n, longest + 1, dtype=torch.float64, device=device)
    by_image: list[Tensor] = []
    whole_norms: list[Tensor] = []
    deltas: list[Tensor] = []
    with network.isolated(), run.progress("exact path gradients") as progress:
        for inputs, objective, _ in run.pieces(lambda _: longest + 1, progress):
            linear = Linearization(network, inputs, objective, n_gradients=longest + 1)
            gradients = inputs
            for i, gradients in linear.by_length(longest, first):
                norms = norms_of(gradients) / linear.scale
                by_layer[i - first, : len(norms)] += norms.sum(1)
            gradients = run.arrive(linear, gradients)
            by_image.append(norms_of(gradients).T / linear.scale)
            whole = full_gradient(network, inputs, objective, (), run.wrt)
            whole_norms.append(norms_of(whole[None])[0])
            deltas.append(relative_deviation(gradients.sum(0) / linear.scale, whole))
    image_norms = torch.cat(by_image).cpu().numpy()
    table = by_layer.cpu().numpy() / run.n_images
    possible = np.arange(longest + 1) <= (n - np.arange(n))[:, None]
    dataset = xr.Dataset(
        {
            "sum_gradient_norm": variable(("path_length",), image_norms.mean(0), "norm of the summed path gradients"),
            "layer_gradient_norm": variable(
                ("layer", "path_length"),
                np.where(possible, table, np.nan),
                "norm of the summed path gradients at the block's input",
            ),
            "full_gradient_norm": variable((), float(torch.cat(whole_norms).mean()), "norm of the whole gradient"),
            "convergence_delta": variable(
                (), float(torch.cat(deltas).max()), "largest relative deviation of all lengths from the whole gradient"
            ),
        }
    )
    if per_sample:
        dataset["sample_sum_gradient_norm"] = variable(
            ("sample", "path_length"), image_norms, "norm of the image's summed path gradients"
        )
        dataset = dataset.assign_coords(sample=np.arange(len(image_norms)))
    return dataset


def sampled_norms(run: Measurement, lengths: list[int], n_draws: int, rtol: float | None, seed: int) -> xr.Dataset:
    """Measure the gradients of random paths of each length; see ``PathGradient.analyze`` for the variables."""
    n = len(run.network) - run.first
    norms = np.full((len(lengths), n_draws), np.nan)
    paths = np.zeros((len(lengths), n_draws, n), dtype=bool)
    done, open_lengths = 0, lengths
    while open_lengths and done < n_draws:
        stop = n_draws if rtol is None else min(n_draws, max(_FIRST_ROUND, 2 * done))
        for k in open_lengths:
            paths[k, done:stop] = [draw_path(n, k, seed=seed, draw=draw) for draw in range(done, stop)]
        wanted = paths[open_lengths, done:stop].reshape(-1, n)
        norms[open_lengths, done:stop] = _path_norms(run, wanted).reshape(len(open_lengths), stop - done)
        done = stop
        if rtol is not None:
            open_lengths = [k for k in open_lengths if _standard_error(norms[k, :done]) > rtol * norms[k, :done].mean()]
    taken = (~np.isnan(norms)).sum(1)
    norms, paths = norms[:, :done], paths[:, :done]
    errors = np.array([_standard_error(row[~np.isnan(row)]) for row in norms])
    return xr.Dataset(
        {
            "gradient_norm": variable(("path_length", "draw"), norms, "norm of the path's gradient"),
            "path": variable(("path_length", "draw", "layer"), paths, "whether the path takes the block's branch"),
            "mean_gradient_norm": variable(
                ("path_length",), np.nanmean(norms, axis=1), "mean norm of a single path's gradient"
            ),
            "gradient_norm_standard_error": variable(
                ("path_length",), errors, "standard error of the mean norm over the draws"
            ),
            "n_draws": variable(("path_length",), taken, "number of paths drawn"),
        },
        coords={"draw": np.arange(done)},
    )


def _path_norms(run: Measurement, paths: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return each path's gradient norm, averaged over the images: (n_paths,)."""
    network, first = run.network, run.first
    rows: IntArray = np.where(paths, np.arange(first, len(network)), DELETED)
    ranked = np.lexsort(rows.T)  # neighbours agree on the last blocks, so that they share the work there
    sums = torch.zeros(len(paths), dtype=torch.float64, device=network.device)
    with network.isolated(), run.progress(f"{len(paths)} path gradients") as progress:
        for inputs, objective, capacity in run.pieces(lambda _: min(_FEW_PATHS, len(paths)), progress):
            linear = Linearization(network, inputs, objective, n_gradients=min(capacity, len(paths)))
            step = ceil(len(paths) / ceil(len(paths) / capacity))
            for start in range(0, len(paths), step):
                chosen = ranked[start : start + step]
                plan = path_plan(rows[chosen])
                norms = norms_of(run.arrive(linear, linear.along(plan, first))).sum(1) / linear.scale
                index = torch.as_tensor(chosen, device=sums.device)
                sums[index] += norms[torch.as_tensor(plan.stream, device=sums.device)]
    means: NDArray[np.float64] = sums.cpu().numpy() / run.n_images
    return means


def gradient_bytes(trace: Trace) -> int:
    """Return about how many bytes one image's gradient takes on its way through the widest block."""
    largest = max(np.prod(shape) for shape in (*trace.input_shapes, *trace.output_shapes))
    return int(_LIVE_TENSORS * largest * trace.output.element_size())


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


def norms_of(gradients: Tensor) -> Tensor:
    """Return the L2 norm of each image's gradient, (K, N) for gradients (K, N, ...), in float64."""
    norms: Tensor = torch.linalg.vector_norm(gradients.flatten(2), dim=2, dtype=torch.float64)
    return norms


def relative_deviation(gradients: Tensor, whole: Tensor) -> Tensor:
    """Return the norm of the difference relative to that of ``whole`` for each image, (N,)."""
    difference = norms_of((gradients - whole)[None])[0]
    size = norms_of(whole[None])[0]
    return torch.where(size > 0, difference / size, difference)


def _standard_error(values: NDArray[np.float64]) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")
