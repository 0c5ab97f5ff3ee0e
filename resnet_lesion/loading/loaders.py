"""Loaders of images as a model expects them: in order, some of them, or shuffled and augmented."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

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
    """Return timm's loader of images as the model expects them (its ``pretrained_cfg``), in order.

    Raises:
        ValueError: If the model takes images of other than one or three channels.
    """
    if _is_tensors(dataset):
        return DataLoader(dataset, batch_size)
    from timm.data import create_loader

    config = _data_config(model)
    loader = create_loader(
        dataset,
        batch_size=batch_size,
        use_prefetcher=device.type == "cuda",
        persistent_workers=workers > 0,
        num_workers=workers,
        device=device,
        **config,
    )
    dataset.transform = _InMode(config["input_size"][0], dataset.transform)
    return loader


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
    from timm.data import create_loader, create_transform

    config = _data_config(model)
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
    dataset.transform = _InMode(config["input_size"][0], dataset.transform)
    return loader


def input_channels(model: nn.Module) -> int:
    """Return how many channels a timm model's images have.

    Its ``pretrained_cfg`` may not say: it has three where a model was made with ``in_chans=1``. The first convolution
    does, unless the model rearranges the pixels before.
    """
    first = next((module for module in model.modules() if isinstance(module, nn.Conv2d)), None)
    config: Any = getattr(model, "pretrained_cfg", None) or {}
    return 1 if first is not None and first.in_channels == 1 else int(config.get("input_size", (3,))[0])


_MODES = {1: "L", 3: "RGB"}  # Pillow's, by the number of channels


def _data_config(model: nn.Module) -> dict[str, Any]:
    """Return how timm loads images for a model, with as many channels, means and deviations as it takes."""
    from timm.data import resolve_model_data_config

    channels = input_channels(model)
    if channels not in _MODES:
        raise ValueError(f"expected a model that takes grey or colour images, got one of {channels} channels.")
    config: dict[str, Any] = resolve_model_data_config(model)
    config["input_size"] = (channels, *config["input_size"][1:])
    for name in ("mean", "std"):
        if len(config[name]) != channels:  # as timm's own loader does
            config[name] = (sum(config[name]) / len(config[name]),) * channels
    return config


class _InMode:
    """Convert images to as many channels as the model takes, then transform them."""

    def __init__(self, channels: int, transform: Any) -> None:
        self._mode, self._transform = _MODES[channels], transform

    def __call__(self, image: Image.Image) -> Any:
        return self._transform(image if image.mode == self._mode else image.convert(self._mode))


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
