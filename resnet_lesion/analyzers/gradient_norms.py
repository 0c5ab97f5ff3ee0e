"""Gradient norms by path length, measured over data: of the sums over all paths, or of single random paths."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from math import ceil
from typing import Literal

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from resnet_lesion.engines.linearization import Linearization, Objective, full_gradient, path_plan, prove_gradients
from resnet_lesion.engines.memory import gradient_capacity
from resnet_lesion.network.classes import number_of_classes
from resnet_lesion.network.orders import DELETED, IntArray
from resnet_lesion.network.paths import draw_path
from resnet_lesion.network.residual_network import ResidualNetwork
from resnet_lesion.results.gradients import over_draws
from resnet_lesion.results.provenance import array_hash
from resnet_lesion.results.statistics import standard_error
from resnet_lesion.results.variables import variable
from resnet_lesion.runs.checkpoint import Totals
from resnet_lesion.runs.data import IGNORE_INDEX, Data
from resnet_lesion.runs.run import Pass, Run, Seen
from resnet_lesion.warning import warn

ObjectiveName = Literal["cross_entropy", "score"]


# With fewer paths than this at once, they share little work.
_FEW_PATHS = 16


# All path lengths together deviate from the whole gradient by rounding only: by a few hundredths in bfloat16.
_DEVIATION = 0.1


# With rtol, draws are taken in rounds, the first of this many, each later one as many as all before it together.
_FIRST_ROUND = 32


@dataclass(frozen=True)
class GradientOptions:
    """How gradients are taken: of what, where, and in how much memory.

    Attributes:
        objective: What is differentiated.
        wrt: The block at whose input the gradients are taken, or None for the model's input.
        memory_limit: Roughly how many bytes to use at most; None for a default.

    Raises:
        ValueError: If there is no such objective.
    """

    objective: ObjectiveName = "cross_entropy"
    wrt: int | None = None
    memory_limit: int | None = None

    def __post_init__(self) -> None:
        if self.objective not in ("cross_entropy", "score"):
            raise ValueError(f'expected objective "cross_entropy" or "score", got {self.objective!r}.')

    @property
    def first(self) -> int:
        """The first block on the paths."""
        return self.wrt or 0


@dataclass(frozen=True)
class Microbatch:
    """Some images of a batch, as many as memory holds with their gradients.

    Attributes:
        inputs: (n, ...) on the model's device; where the model does not take as few as are left, one more than once.
        n_images: How many they are, each counted once.
        objective: What is differentiated; 0 for an image that is left out, and so is its gradient.
        counts: (n,) whether the image counts.
        capacity: How many gradients memory holds for each of them.
    """

    inputs: Tensor
    n_images: int
    objective: Objective
    counts: Tensor
    capacity: int


def microbatches(pass_: Pass, totals: Totals, options: GradientOptions, n_gradients: int) -> Iterator[Microbatch]:
    """Iterate over the images, as many at a time as memory holds with their gradients.

    Args:
        pass_: The pass over them.
        totals: What is added up.
        options: How the gradients are taken.
        n_gradients: How many gradients are wanted at once for each image.

    Raises:
        ValueError: If the model returns no logits, or the run's shard cuts the lesions.
    """
    network, shard = pass_.run.network, pass_.run.shard
    if shard.lesions != (0, 1):
        raise ValueError(f"expected a shard of the images only, as there are no lesions, got {shard}.")
    pass_.proof.require_gradients()
    trace = pass_.proof.trace
    n_classes = number_of_classes(network.model, trace.output)
    capacity = gradient_capacity(network, trace, options.memory_limit)
    step = max(1, capacity // n_gradients)
    for inputs, targets in pass_.batches(totals, n_classes):
        for start in range(0, len(inputs), step):
            n = len(targets[start : start + step])
            some = pass_.proof.at_least(n, start)
            chosen, labels = network.to_device(inputs[some]), targets[some]
            labels[n:] = IGNORE_INDEX
            objective = _objective(options.objective, labels)
            with pass_.proof.one_pass(network.model):
                yield Microbatch(chosen, n, objective, labels != IGNORE_INDEX, max(1, capacity // len(chosen)))
            pass_.progress.update(n)


def exact_norms(
    run: Run, data: Data, options: GradientOptions, lengths: list[int], per_sample: bool
) -> tuple[xr.Dataset, Seen]:
    """Measure the gradient summed over all paths of each length; see ``PathGradient.analyze`` for the variables."""
    network, first, longest = run.network, options.first, lengths[-1]
    n = len(network) - first
    with run.pass_over(data, "exact path gradients") as pass_:
        prove_gradients(network, pass_.proof, pass_.images)
        zeros = partial(torch.zeros, dtype=torch.float64, device=network.device)
        by_layer, at_input, of_whole, delta = zeros(n, longest + 1), zeros(longest + 1), zeros(()), zeros(())
        by_image: list[Tensor] = []
        totals: Totals = {
            "by_layer": by_layer,
            "at_input": at_input,
            "of_whole": of_whole,
            "delta": delta,
            "by_image": by_image,
        }
        for batch in microbatches(pass_, totals, options, longest + 1):
            linear = Linearization(network, batch.inputs, batch.objective, n_gradients=longest + 1)
            gradients = batch.inputs
            for i, gradients in linear.by_length(longest, first):
                norms = norms_of(gradients) / linear.scale
                by_layer[i - first, : len(norms)] += norms.sum(1)
            gradients = linear.to_wrt(options.wrt, gradients)
            norms = norms_of(gradients) / linear.scale
            at_input += norms.sum(1)
            if per_sample:
                by_image.append(norms.T.where(batch.counts[:, None], torch.nan)[: batch.n_images])
            whole = full_gradient(network, batch.inputs, batch.objective, (), options.wrt)
            of_whole += norms_of(whole[None]).sum()
            torch.maximum(delta, convergence_delta(gradients.sum(0) / linear.scale, whole).max(), out=delta)
    _require_finite(torch.cat([by_layer.flatten(), at_input, of_whole[None]]), network)
    if longest == n and float(delta) > _DEVIATION:
        warn(
            f"the gradients of all path lengths together deviate from the ordinary gradient by {float(delta):.2g} of "
            "it: an adapter is wrong, as network.verify(inputs) and resnet_lesion.testing.check_adapter tell, or the "
            "dtype is too coarse."
        )
    table, norms_at_input, norm_of_whole = (
        total.cpu().numpy() / pass_.seen.total for total in (by_layer, at_input, of_whole)
    )
    possible = np.arange(longest + 1) <= (n - np.arange(n))[:, None]
    dataset = xr.Dataset(
        {
            "sum_gradient_norm": variable(
                ("path_length",), norms_at_input, "norm of the summed path gradients", over_images="mean"
            ),
            "layer_gradient_norm": variable(
                ("layer", "path_length"),
                np.where(possible, table, np.nan),
                "norm of the summed path gradients at the block's input",
                over_images="mean",
            ),
            "full_gradient_norm": variable((), norm_of_whole, "norm of the whole gradient", over_images="mean"),
            "convergence_delta": variable(
                (),
                float(delta),
                "largest relative deviation of all lengths from the whole gradient",
                over_images="maximum",
            ),
        }
    )
    if per_sample:
        image_norms = torch.cat([part.cpu() for part in by_image]).numpy()  # those from a checkpoint were already there
        dataset["sample_sum_gradient_norm"] = variable(
            ("sample", "path_length"), image_norms, "norm of the image's summed path gradients"
        )
        i, n_shards = run.shard.data
        dataset = dataset.assign_coords(sample=i + n_shards * np.arange(len(image_norms)))
    return dataset, pass_.seen


def sampled_norms(
    run: Run, data: Data, options: GradientOptions, lengths: list[int], n_draws: int, rtol: float | None, seed: int
) -> tuple[xr.Dataset, Seen]:
    """Measure the gradients of random paths of each length; see ``PathGradient.analyze`` for the variables."""
    n = len(run.network) - options.first
    norms = np.full((len(lengths), n_draws), np.nan)
    paths = np.zeros((len(lengths), n_draws, n), dtype=bool)
    done, open_lengths = 0, lengths
    while True:
        stop = n_draws if rtol is None else min(n_draws, max(_FIRST_ROUND, 2 * done))
        for k in open_lengths:
            paths[k, done:stop] = [draw_path(n, k, seed=seed, draw=draw) for draw in range(done, stop)]
        wanted = paths[open_lengths, done:stop].reshape(-1, n)
        means, seen = _path_norms(run, data, options, wanted, done)
        norms[open_lengths, done:stop] = means.reshape(len(open_lengths), stop - done)
        done = stop
        if rtol is not None:
            open_lengths = [k for k in open_lengths if standard_error(norms[k, :done]) > rtol * norms[k, :done].mean()]
        if done == n_draws or not open_lengths:
            break
    norms, paths = norms[:, :done], paths[:, :done]
    dataset = xr.Dataset(
        {
            "gradient_norm": variable(
                ("path_length", "draw"), norms, "norm of the path's gradient", over_images="mean"
            ),
            "path": variable(("path_length", "draw", "layer"), paths, "whether the path takes the block's branch"),
        },
        coords={"draw": np.arange(done)},
    )
    return over_draws(dataset), seen


def _path_norms(
    run: Run, data: Data, options: GradientOptions, paths: NDArray[np.bool_], n_before: int
) -> tuple[NDArray[np.float64], Seen]:
    """Return each path's gradient norm, averaged over the images: (n_paths,), in one of several passes over them."""
    network, first = run.network, options.first
    rows: IntArray = np.where(paths, np.arange(first, len(network)), DELETED)
    ranked = np.lexsort(rows.T)  # neighbours agree on the last blocks, so that they share the work there
    drawn = {"paths_sha256": array_hash(paths)}
    with run.pass_over(data, f"{len(paths)} path gradients", f"from-draw-{n_before}.", drawn) as pass_:
        prove_gradients(network, pass_.proof, pass_.images)
        sums = torch.zeros(len(paths), dtype=torch.float64, device=network.device)
        for batch in microbatches(pass_, {"sums": sums}, options, min(_FEW_PATHS, len(paths))):
            linear = Linearization(network, batch.inputs, batch.objective, n_gradients=min(batch.capacity, len(paths)))
            step = ceil(len(paths) / ceil(len(paths) / batch.capacity))
            for start in range(0, len(paths), step):
                chosen = ranked[start : start + step]
                plan = path_plan(rows[chosen])
                norms = norms_of(linear.to_wrt(options.wrt, linear.along(plan, first))).sum(1) / linear.scale
                index = torch.as_tensor(chosen, device=sums.device)
                sums[index] += norms[plan.stream_on(sums.device)]
    _require_finite(sums, network)
    return sums.cpu().numpy() / pass_.seen.total, pass_.seen


def _objective(name: ObjectiveName, labels: Tensor) -> Objective:
    """Return the function of these labels that is differentiated; 0 for an image that is left out."""
    if name == "score":
        counts, classes = labels != IGNORE_INDEX, labels.clamp(min=0)
        return lambda logits: logits.gather(1, classes[:, None])[:, 0].where(counts, 0.0)

    def cross_entropy(logits: Tensor) -> Tensor:
        # in half precision softmax rounds a confident prediction's gradient away
        logits = logits if logits.dtype == torch.float64 else logits.float()
        return F.cross_entropy(logits, labels, reduction="none", ignore_index=IGNORE_INDEX)

    return cross_entropy


def _require_finite(norms: Tensor, network: ResidualNetwork) -> None:
    """Refuse what has left the range of the dtype, which no later average would show."""
    if not bool(torch.isfinite(norms).all()):
        raise ValueError(
            f"expected finite gradients, got NaN or infinity: they leave the range of {network.dtype} or of what "
            "autocast computes in. Use a copy in float64, model.double(), without autocast."
        )


def norms_of(gradients: Tensor) -> Tensor:
    """Return the L2 norm of each image's gradient, (K, N) for gradients (K, N, ...), in float64."""
    norms: Tensor = torch.linalg.vector_norm(gradients.flatten(2), dim=2, dtype=torch.float64)
    return norms


def convergence_delta(gradients: Tensor, whole: Tensor) -> Tensor:
    """Return the norm of the difference relative to that of ``whole`` for each image, (N,)."""
    # Not network.precision's relative_deviation, which compares the largest entries over the batch: gradients of images
    # that the network is sure of are smaller by orders of magnitude, and those of the others would hide them.
    difference = norms_of((gradients - whole)[None])[0]
    size = norms_of(whole[None])[0]
    return torch.where(size > 0, difference / size, difference)
