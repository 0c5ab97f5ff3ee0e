"""Reading every n-th image from a given one on: where the data can be indexed, without reading the others."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    SequentialSampler,
    Subset,
    TensorDataset,
    default_collate,
)

from resnet_lesion.engines.proof import N_IMAGES
from resnet_lesion.runs.data import Batch, Data, batches


class Reading:
    """One pass over the data.

    Args:
        data: A tuple ``(inputs, targets)`` or an iterable of such batches. From a DataLoader that reads its data set in
            order, also inside timm's own loader, only what is wanted is read. With a ``collate_fn`` of somebody's own
            it is read as it comes, since that may leave images out, and nobody else knows which.

    Attributes:
        first: The first few images and their targets, (n, ...) and (n,): up to :data:`N_IMAGES`.
        batch_size: How many images the data's own batches hold.
        is_indexed: Whether only what is wanted is read.
        n_images: How many images the data hold, all shards together; None before a stream has ended.
    """

    def __init__(self, data: Data) -> None:
        self._data = data
        loader = _in_order(data)
        self.is_indexed = loader is not None
        if loader is not None:
            # as all others are read: what a data set opens here would be shared by the processes that are forked later
            some = range(min(N_IMAGES, len(loader.dataset)))  # type: ignore[arg-type]  # it has a length
            inputs, targets = next(_loaded(_only(data, some, workers=min(1, loader.num_workers))))
            assert loader.batch_size is not None
            self.batch_size = loader.batch_size
            self.n_images: int | None = len(loader.dataset)  # type: ignore[arg-type]  # it has a length
        else:
            self.n_images = None
            stream = self._counted(_loaded(data))
            inputs, targets = next(stream)
            self.batch_size = len(inputs)
            self._stream = chain([(inputs, targets)], stream)
        self.first = inputs[:N_IMAGES], targets[:N_IMAGES]

    def every_nth(self, i: int, n: int, start: int = 0) -> Iterator[Batch]:
        """Yield the images with the numbers i, i + n, i + 2 n, ..., except the first ``start`` of them, in batches."""
        loader = _in_order(self._data)
        if loader is not None:
            numbers = range(i, len(loader.dataset), n)[start:]  # type: ignore[arg-type]  # it has a length
            return _loaded(_only(self._data, numbers, loader.num_workers)) if numbers else iter(())
        chosen = self._stream if n == 1 else every_nth(self._stream, i, n)
        return behind(start, chosen)

    def some(self, numbers: Sequence[int]) -> Iterator[Batch]:
        """Yield the images with these numbers one by one, where data :attr:`is_indexed`."""
        loader = _in_order(self._data)
        assert loader is not None
        for inputs, targets in _loaded(_only(self._data, numbers, min(1, loader.num_workers))):
            yield from zip(inputs.split(1), targets.split(1), strict=True)

    def listed_labels(self) -> Tensor | None:
        """Return the labels of all images, (n,), where a data set lists them: they may be others than those it gives.

        As torchvision's ``target_transform`` would make them.
        """
        loader = _in_order(self._data)
        dataset = None if loader is None else loader.dataset
        listed = dataset.tensors[-1] if type(dataset) is TensorDataset else getattr(dataset, "targets", None)
        try:
            labels = torch.as_tensor(listed)
        except (TypeError, ValueError, RuntimeError):
            return None
        fits = labels.shape == (self.n_images,) and not labels.is_floating_point() and not labels.is_complex()
        return labels.long() if fits else None

    def _counted(self, stream: Iterable[Batch]) -> Iterator[Batch]:
        n = 0
        for batch in stream:
            n += len(batch[0])
            yield batch
        self.n_images = n


def every_nth(stream: Iterable[Batch], i: int, n: int) -> Iterator[Batch]:
    """Yield the images with the numbers i, i + n, i + 2 n, ... of all batches together."""
    number = 0
    for inputs, targets in stream:
        chosen = slice((i - number) % n, None, n)
        number += len(inputs)
        if len(targets[chosen]):
            yield inputs[chosen], targets[chosen]


def behind(start: int, stream: Iterable[Batch]) -> Iterator[Batch]:
    """Yield all images but the first ``start``."""
    for inputs, targets in stream:
        if start < len(inputs):
            yield inputs[start:], targets[start:]
        start = max(0, start - len(inputs))


def in_batches_of(size: int, stream: Iterable[Batch]) -> Iterator[Batch]:
    """Yield the same images in batches of that size, the last of what is left."""
    waiting: list[Batch] = []
    n = 0
    for batch in stream:
        if not waiting and len(batch[0]) == size:
            yield batch  # as it is, without a copy
            continue
        waiting.append(batch)
        n += len(batch[0])
        while n >= size:
            inputs, targets = (torch.cat(parts) for parts in zip(*waiting, strict=True))
            yield inputs[:size], targets[:size]
            n -= size
            waiting = [(inputs[size:], targets[size:])] if n else []
    if n:
        inputs, targets = (torch.cat(parts) for parts in zip(*waiting, strict=True))
        yield inputs, targets


def _loaded(data: Data) -> Iterator[Batch]:
    """Yield the data's batches; name a loader's process that has died where that shows as a broken connection only."""
    try:
        yield from batches(data)
    except (ConnectionError, EOFError, FileNotFoundError):
        for _ in range(10):
            torch._C._error_if_any_worker_fails()  # raises, as torch does where it finds out itself
            time.sleep(0.1)  # a process closes its connections before it is dead
        raise


def _in_order(data: Any) -> DataLoader[Any] | None:
    """Return the DataLoader that reads a data set in order, the data or inside timm's; None if none does."""
    loader = _loader(data)
    in_order = (
        type(loader) is DataLoader
        and not isinstance(loader.dataset, IterableDataset)
        and type(loader.sampler) is SequentialSampler
        and loader.sampler.data_source is loader.dataset  # type: ignore[comparison-overlap]
        and type(loader.batch_sampler) is BatchSampler
        and loader.batch_sampler.sampler is loader.sampler
        and not loader.drop_last
        and _keeps_all(loader.collate_fn)
    )
    return loader if in_order else None


def _keeps_all(collate: Any) -> bool:
    """Tell whether what makes batches is known to leave no image out: torch's own, and that of timm's loader."""
    return collate is default_collate or getattr(collate, "__module__", "") == "timm.data.loader"


def _loader(data: Any) -> Any:
    """Return what timm's loader wraps, which yields the same images; a third-party wrapper may yield others."""
    if not hasattr(data, "loader"):
        return data
    from timm.data.loader import PrefetchLoader

    return data.loader if type(data) is PrefetchLoader else data


def _only(data: Any, numbers: Sequence[int], workers: int) -> Any:
    """Return the same loader for some of the images."""
    loader = _loader(data)
    with_workers = {
        "prefetch_factor": loader.prefetch_factor,
        "multiprocessing_context": loader.multiprocessing_context,
    }
    chosen: Any = DataLoader(
        Subset(loader.dataset, numbers),
        loader.batch_size,
        num_workers=workers,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        timeout=loader.timeout if workers else 0,
        worker_init_fn=loader.worker_init_fn,
        generator=loader.generator,
        **(with_workers if workers else {}),
    )
    if loader is data:
        return chosen
    wrapped = copy.copy(data)
    wrapped.loader = chosen
    return wrapped
