"""What was read of the data, in a few numbers that tell later whether the same images come again, and what follows."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import NoReturn

import torch
from torch import Tensor

from resnet_lesion.results.provenance import image_digest
from resnet_lesion.runs.checkpoint import Done
from resnet_lesion.runs.data import Batch
from resnet_lesion.runs.reading import Reading
from resnet_lesion.runs.shards import Part

# as SplitMix64 makes numbers without pattern of 1, 2, 3, ... (Steele, Lea & Flood 2014), but for the sign when shifted
_STEP, _MIX = 0x9E3779B97F4A7C15 - 2**64, (0xBF58476D1CE4E5B9 - 2**64, 0x94D049BB133111EB - 2**64)


class Trail:
    """The images of a pass, as far as it has come.

    Nothing of it waits for a device, but for the few images of the sample, until :meth:`done` is asked for.

    Args:
        done: Where the pass goes on.

    Attributes:
        n_images: How many images it has come past.
    """

    def __init__(self, done: Done) -> None:
        self.n_images = done.n_images
        self._last: Batch | str = done.last
        self._labels = None if done.labels is None else torch.tensor(done.labels)
        self._sample = None if done.sample is None else [*done.sample]

    def add(self, inputs: Tensor, targets: Tensor) -> None:
        """Go on by a batch."""
        if self._labels is not None:
            self._labels = self._labels.to(targets.device) + sum_of_labels(targets, self.n_images)
        if self._sample is not None:
            for number in sampled(self.n_images + len(targets))[len(self._sample) :]:
                i = number - self.n_images
                self._sample.append(image_digest(inputs[i : i + 1], targets[i : i + 1]))
        self._last = inputs[-1:], targets[-1:]
        self.n_images += len(targets)

    def done(self, *, complete: bool = False) -> Done:
        """Return what a checkpoint says of it."""
        last = self._last if isinstance(self._last, str) else image_digest(*self._last)
        labels = None if self._labels is None else int(self._labels)
        return Done(self.n_images, last, complete, labels, None if self._sample is None else [*self._sample])


def remaining(reading: Reading, part: Part, done: Done) -> Iterator[Batch]:
    """Return the batches of a shard that follow on what was done, once that has turned out to be the same images.

    Where the data can be indexed, a few images are read again, and the labels where the data set lists them; all others
    are read again from the beginning, as nothing else leads to those that follow.

    Args:
        reading: The data.
        part: The shard's images.
        done: What was done of them.

    Raises:
        ValueError: If other images come, or if what was complete no longer is.
    """
    if not done.n_images:
        return reading.every_nth(*part)
    if reading.is_indexed and _is_same_sample(reading, part, done):
        following = reading.every_nth(*part, done.n_images)
    else:
        following = _read_again(reading.every_nth(*part), done)
    if done.complete and next(following, None) is not None:
        _refuse(done, "more images")
    return following


def sampled(n_images: int) -> list[int]:
    """Return the numbers of the images whose digests are kept of so many: 1, 2, 4, 8, ..."""
    return [1 << k for k in range(max(0, n_images - 1).bit_length())]


def sum_of_labels(targets: Tensor, start: int = 0) -> Tensor:
    """Return a number, () int64, that other labels share only by a chance in 2^64.

    It is the sum of the labels, each times an odd number without pattern that follows from its image's, modulo 2^64:
    so that the sums of parts add up to the sum of all.

    Args:
        targets: (n,) labels, int64.
        start: The number of the first image.
    """
    mixed = torch.arange(start, start + len(targets), device=targets.device) * _STEP
    for shift, factor in zip((30, 27), _MIX, strict=True):
        mixed = (mixed ^ (mixed >> shift)) * factor
    return (targets * (mixed ^ (mixed >> 31) | 1)).sum()


def _is_same_sample(reading: Reading, part: Part, done: Done) -> bool:
    """Refuse other images; tell whether all labels are known to be the same, as far as the data set lists them."""
    images = range(part[0], reading.n_images or 0, part[1])
    if len(images) < done.n_images:
        _refuse(done, "fewer images")
    expected = dict(zip(sampled(done.n_images), done.sample or (), strict=False)) | {done.n_images - 1: done.last}
    found = reading.some([images[number] for number in expected])
    for digest, (inputs, targets) in zip(expected.values(), found, strict=True):
        if image_digest(inputs, targets) != digest:
            _refuse(done, "another one")
    listed = reading.listed_labels()
    if done.labels is None or listed is None:
        return True
    return int(sum_of_labels(listed[images.start :: images.step][: done.n_images])) == done.labels


def _read_again(stream: Iterator[Batch], done: Done) -> Iterator[Batch]:
    """Read the images that were done, refuse others, and yield those that follow."""
    again, rest = Trail(Done()), list[Batch]()
    for inputs, targets in stream:
        known = done.n_images - again.n_images
        again.add(inputs[:known], targets[:known])
        if known < len(targets):
            rest = [(inputs[known:], targets[known:])]
        if known <= len(targets):
            break
    found = again.done()
    if found.n_images < done.n_images:
        _refuse(done, "fewer images")
    if found.last != done.last or (done.sample is not None and found.sample != done.sample):
        _refuse(done, "another one")
    if done.labels is not None and found.labels != done.labels:
        _refuse(done, "other labels")
    yield from chain(rest, stream)


def _refuse(done: Done, found: str) -> NoReturn:
    raise ValueError(
        f"expected the data in the order in which {done.n_images} images were done, got {found}. Load the same data "
        "without shuffling, or shuffle with a seed; for other data, pass another folder as checkpoint."
    )
