"""A run of an analysis over the data, or over a shard of it, that resumes where it was stopped.

What an analysis adds up image by image are its totals. While it reads the data they are written now and then to one
file, which is replaced as a whole; a run that finds such a file loads them and continues after the last image that they
hold. The file says which run it belongs to: another model, other data or other options are refused.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import torch
import xarray as xr
from tqdm import tqdm

from resnet_lesion.engines.proof import Proof, prove
from resnet_lesion.network.isolation import isolated
from resnet_lesion.network.residual_network import ResidualNetwork
from resnet_lesion.results.provenance import image_digest, origin
from resnet_lesion.results.variables import provenance, variable
from resnet_lesion.runs.checkpoint import Checkpoint, Done, Totals, fingerprint
from resnet_lesion.runs.data import IGNORE_INDEX, Batch, Data, defects, describe, length, refuse_defects
from resnet_lesion.runs.reading import Reading, in_batches_of
from resnet_lesion.runs.shards import ShardLike, as_shard
from resnet_lesion.runs.trail import Trail, remaining

# How often progress is written, in seconds; writing takes a few milliseconds.
_SECONDS = 10.0


class RunOptions(TypedDict):
    """How to do a run: what every analysis takes and none looks at."""

    shard: ShardLike
    checkpoint: str | os.PathLike[str] | None
    show_progress: bool


@dataclass(frozen=True)
class Seen:
    """What a pass over the data has seen.

    Attributes:
        total: Number of images that were counted.
        skipped: Number of images that were left out, because their label said so.
        data: What the data was, in a line.
        proof: What the network showed on the first images.
        fingerprint: What must be equal for two runs to be parts of one: the run's own, and how the data begins.
        n_images: Number of images of all shards together.
    """

    total: int
    skipped: int
    data: str
    proof: Proof
    fingerprint: Mapping[str, object]
    n_images: int | None = None


class Run:
    """One run of an analysis: what is computed, and how. It never changes; what a pass finds is kept in the pass.

    Args:
        network: The network.
        name: What the analysis is called among others in one folder, such as ``random_deletion``.
        title: What its result is.
        options: The options of the call that say what is computed.
        shard: Which part of it; None for all.
        checkpoint: A folder for what has been done; None to keep nothing.
        show_progress: Show a progress bar.

    Attributes:
        network: The network.
        name: What it is called in the names of its files.
        shard: Which part of it.
        fingerprint: What must be equal for two runs to be parts of one, except what depends on the data.
    """

    def __init__(
        self,
        network: ResidualNetwork,
        name: str,
        title: str,
        options: Mapping[str, object],
        *,
        shard: ShardLike = None,
        checkpoint: str | os.PathLike[str] | None = None,
        show_progress: bool = True,
    ) -> None:
        self.network, self.name, self.shard = network, name, as_shard(shard)
        self._show_progress, self._origin = show_progress, origin(network, title, options)
        self.fingerprint = fingerprint(self._origin)
        self._folder = None if checkpoint is None else Path(checkpoint)
        if self._folder is not None:
            if self._folder.is_file():
                raise NotADirectoryError(f"expected a folder as checkpoint, got the file {str(checkpoint)!r}.")
            self._folder.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def pass_over(
        self, data: Data, description: str = "", part: str = "", options: Mapping[str, object] | None = None
    ) -> Iterator[Pass]:
        """Begin a pass over the data, with the model isolated.

        Args:
            data: The data.
            description: What to write next to the progress bar; by default the run's name.
            part: What its file's name begins with, where a run takes several passes.
            options: What is computed in it, where that does not follow from the run's options alone.
        """
        n = length(data)
        n = None if n is None else len(range(self.shard.data[0], n, self.shard.data[1]))
        description = description or self.name.replace("_", " ")
        with (
            isolated(self.network.model),
            tqdm(total=n, unit="image", disable=not self._show_progress, desc=description) as progress,
        ):
            file = f"{part}{self.name}{self.shard.name}.part.nc"
            checkpoint = None if self._folder is None else self._folder / file
            pass_ = Pass(self, data, progress, checkpoint, options)
            with self.network.isolated():
                yield pass_

    def finish(self, dataset: xr.Dataset, seen: Seen) -> xr.Dataset:
        """Return the result with what says how it came about and what it can be merged with.

        Args:
            dataset: The result.
            seen: What the pass that it was computed in has seen.
        """
        dataset["total"] = variable((), seen.total, "images", over_images="sum")
        dataset["skipped"] = variable((), seen.skipped, "images left out", over_images="sum")
        attrs = {**self._origin, "data": seen.data, "fingerprint": json.dumps(seen.fingerprint)}
        attrs["proof"] = seen.proof.to_json()
        if not self.shard.is_whole:
            attrs["shard"] = self.shard.to_json()
            if seen.n_images is not None:
                attrs["n_images"] = seen.n_images
        return provenance(dataset, attrs)


class Pass:
    """One pass of a run over the data.

    Attributes:
        run: The run.
        images: The first images of the data.
        proof: What the network showed on the first images of the data.
        progress: The bar; the code that works through the batches advances it.
        seen: What it has seen; set once all :meth:`batches` have been iterated over.
    """

    seen: Seen

    def __init__(
        self, run: Run, data: Data, progress: tqdm[Any], file: Path | None, options: Mapping[str, object] | None
    ) -> None:
        self.run, self.progress = run, progress
        self._data, self._reading = data, Reading(data)
        images, labels = self._reading.first
        self.images = images
        self._shape = tuple(images.shape[1:])
        dtype = run.network.dtype
        # the labels' turn comes when the number of classes is known
        refuse_defects(defects(images, labels * 0, 1, dtype), 1, dtype, (images, labels), range(len(images)))
        self.proof = prove(run.network, images)
        if run.shard.data != (0, 1) and not self.proof.independent:
            raise ValueError(
                f"expected a model whose outputs do not depend on the batches, which differ between shards, but "
                f"{self.proof.reason}. Run it as a whole."
            )
        of_data = {"input_shape": list(self._shape), "first_image": image_digest(images[:1], labels[:1])}
        self._fingerprint = {**run.fingerprint, **of_data, "behaviour": self.proof.behaviour}
        # data that has grown may begin with the same image
        of_pass = {"n_images": length(data)} | ({"pass": {**options}} if options else {})
        self._checkpoint = None if file is None else Checkpoint(file, {**self._fingerprint, **of_pass})

    def batches(self, totals: Totals, n_classes: int) -> Iterator[Batch]:
        """Yield the batches that are still to be done; when the next one is requested, the last one counts as done.

        Args:
            totals: What is added up. If some work was done before, it is loaded first.
            n_classes: Number of the model's outputs.

        Yields:
            Inputs (n, ...) as they came, and targets (n,) on the model's device: classes, or -100 for an image that is
            to be left out.

        Raises:
            ValueError: If the images or labels do not fit, there is none to count, or the checkpoint is of another run.
        """
        run, device, dtype = self.run, self.run.network.device, self.run.network.dtype
        i, n = run.shard.data
        counted, left_out = (torch.zeros((), dtype=torch.int64, device=device) for _ in range(2))
        found = torch.zeros(2, dtype=torch.bool, device=device)
        totals = {**totals, "counted": counted, "left_out": left_out}
        done = self._checkpoint.load(totals) if self._checkpoint else Done()
        number = i + n * done.n_images  # the next image's
        self.progress.update(done.n_images)
        if int(counted + left_out) != done.n_images:
            raise ValueError(f"the checkpoint holds {int(counted + left_out)} images where it says {done.n_images}.")
        saved_at, trail = time.monotonic(), Trail(done)
        for inputs, targets in self._to_do(done):
            if tuple(inputs.shape[1:]) != self._shape:
                raise ValueError(
                    f"expected every batch of inputs to be (N, {', '.join(map(str, self._shape))}) like the first, "
                    f"got {tuple(inputs.shape)}."
                )
            flags = defects(inputs, targets, n_classes, dtype)
            if flags.device.type == "cpu":  # on an accelerator, asking now would wait for it
                refuse_defects(flags, n_classes, dtype, (inputs, targets), range(number, sys.maxsize, n))
            number += n * len(inputs)
            found |= flags.to(device, non_blocking=True)
            labels = targets.to(device, non_blocking=True)
            counts = labels != IGNORE_INDEX
            if self._checkpoint:
                trail.add(inputs, targets)
            yield inputs, labels.clamp(0, n_classes - 1).where(counts, IGNORE_INDEX)
            counted += counts.sum()
            left_out += (~counts).sum()
            if self._checkpoint and time.monotonic() - saved_at >= _SECONDS:
                refuse_defects(found, n_classes, dtype)
                self._checkpoint.save(totals, trail.done())
                saved_at = time.monotonic()
        refuse_defects(found, n_classes, dtype)
        if not int(counted):
            if not int(left_out):
                raise ValueError(
                    f"expected images in shard {i} of {n}, got none: this part of the run has fewer images than shards."
                )
            raise ValueError(
                f"expected images to count, got none: {int(left_out)} are left out, as their label is {IGNORE_INDEX}"
                + (f", and shard {i} of {n} has no other." if n > 1 else ".")
            )
        if self._checkpoint and not done.complete:
            self._checkpoint.save(totals, trail.done(complete=True))
        total = int(counted)
        about = describe(self._data, total, self._shape)
        self.seen = Seen(total, int(left_out), about, self.proof, self._fingerprint, self._reading.n_images)

    def _to_do(self, done: Done) -> Iterator[Batch]:
        (i, n), size = self.run.shard.data, self._reading.batch_size
        stream = remaining(self._reading, (i, n), done)
        # a loader's batch holds only a few of a shard's images, and batches read from the middle on begin elsewhere
        return in_batches_of(size, stream) if n > 1 or (done.n_images and self._reading.is_indexed) else stream
