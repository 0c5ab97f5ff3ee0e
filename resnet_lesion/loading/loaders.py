"""Loaders of images as a model expects them: in order, some of them, or shuffled and augmented."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

if TYPE_CHECKING:
    from torch import nn


SMALL = 64  # pixels up to which images are shifted as He et al. do on CIFAR, rather than cropped at random scales


def choose_samples(size: int, num_samples: int | None, seed: int) -> list[int]:
    """Choose images of a data set at random, the same ones for the same seed.

    Args:
        size: How many there are.
        num_samples: How many to choose; None for all.
        seed: Seed of the choice.

    Returns:
        Their indices in random order, so that the first few are a random sample too, even of a data set that is sorted
        by class.

    Raises:
        ValueError: If there are not that many.
    """
    num_samples = size if num_samples is None else num_samples
    if not 1 <= num_samples <= size:
        raise ValueError(f"expected a number of samples from 1 to {size}, all images there are, got {num_samples}.")
    return torch.randperm(size, generator=torch.Generator().manual_seed(seed))[:num_samples].tolist()


def evaluation_loader(dataset: Any, model: nn.Module, *, batch_size: int, workers: int, device: torch.device) -> Any:
    """Return timm's loader of images as the model expects them (its ``pretrained_cfg``), in order."""
    if _is_tensors(dataset):
        return DataLoader(dataset, batch_size)
    from timm.data import create_loader, resolve_model_data_config

    return create_loader(
        dataset,
        batch_size=batch_size,
        use_prefetcher=device.type == "cuda",
        persistent_workers=workers > 0,
        num_workers=workers,
        device=device,
        **resolve_model_data_config(model),
    )


def subset_loader(
    dataset: Any, indices: Sequence[int], model: nn.Module, *, batch_size: int, workers: int, device: torch.device
) -> Any:
    """Return :func:`evaluation_loader`'s loader of some of the images, in this order."""
    loader = evaluation_loader(
        subset := Subset(dataset, indices), model, batch_size=batch_size, workers=workers, device=device
    )
    if not isinstance(dataset, TensorDataset):
        dataset.transform = subset.transform  # type: ignore[attr-defined]  # timm put it on the subset, which does not look at it
    return loader


def shuffled_loader(
    dataset: Any,
    model: nn.Module,
    *,
    num_samples: int | None = None,
    seed: int = 0,
    batch_size: int,
    workers: int,
    device: torch.device,
) -> Any:
    """Return :func:`evaluation_loader`'s loader of all images, or of some, in random order (:func:`choose_samples`).

    A stream of images, which cannot be indexed, keeps its order.

    Raises:
        ValueError: If some images of a stream are asked for, or more than there are.
    """
    loading: dict[str, Any] = {"batch_size": batch_size, "workers": workers, "device": device}
    if not isinstance(dataset, IterableDataset):
        return subset_loader(dataset, choose_samples(len(dataset), num_samples, seed), model, **loading)
    if num_samples is not None:
        raise ValueError(f"num_samples={num_samples} needs a data set that can be indexed, not a stream of images.")
    return evaluation_loader(dataset, model, **loading)


def training_loader(dataset: Any, model: nn.Module, *, batch_size: int, workers: int, device: torch.device) -> Any:
    """Return timm's loader of shuffled images, each shifted or cropped at random and, except for digits, flipped.

    Images of up to 64 pixels are padded by an eighth of their size and cropped again (He et al. 2015, section 4.2);
    larger ones are cropped at random scales, as timm does by default. The last images, if they do not fill a batch, are
    left out. The loading processes end with the epoch, so that each epoch's images follow from the random state at its
    beginning.
    """
    from torchvision import transforms

    if isinstance(dataset, TensorDataset):
        shift = transforms.RandomCrop(dataset.tensors[0].shape[-1], padding=1, padding_mode="edge")
        return DataLoader(_Transformed(dataset, shift), batch_size, shuffle=True, drop_last=len(dataset) >= batch_size)
    from timm.data import create_loader, create_transform, resolve_model_data_config

    config = resolve_model_data_config(model)
    size = config["input_size"][-1]
    prefetched = device.type == "cuda"
    loader = create_loader(
        dataset,
        batch_size=batch_size,
        is_training=True,
        color_jitter=0.0,
        use_prefetcher=prefetched,
        persistent_workers=False,
        num_workers=workers,
        device=device,
        **config,
    )
    if size <= SMALL:
        composed: Any = create_transform(is_training=True, no_aug=True, use_prefetcher=prefetched, **config)
        whole = composed.transforms
        changes = [transforms.RandomCrop(size, padding=size // 8), transforms.RandomHorizontalFlip()]
        # to the right size first, to a tensor last
        dataset.transform = transforms.Compose([*whole[:2], *changes, *whole[2:]])
    return loader


def _is_tensors(dataset: Any) -> bool:
    return isinstance(dataset.dataset if isinstance(dataset, Subset) else dataset, TensorDataset)


class Digits(TensorDataset):
    """The digits as tensors, with the names of their classes, as torchvision's data sets have them."""

    classes = tuple("0123456789")


class _Transformed(Dataset[tuple[Tensor, Tensor]]):
    def __init__(self, dataset: TensorDataset, transform: Any) -> None:
        self._dataset, self._transform = dataset, transform

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image, label = self._dataset[index]
        return self._transform(image), label

    def __len__(self) -> int:
        return len(self._dataset)
