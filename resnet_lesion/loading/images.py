"""Images by name or path, read by timm: a folder or zip file with a subfolder for each class, digits, CIFAR-10."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import TensorDataset

from resnet_lesion.digits import load_digits
from resnet_lesion.loading.files import SPLITS, TRAINING_SPLITS, Files, ZipReader
from resnet_lesion.loading.loaders import Digits, choose_samples, evaluation_loader, subset_loader, training_loader

if TYPE_CHECKING:
    from torch import nn


_ELSEWHERE = ("torch", "hfds", "hfids", "tfds", "wds")  # prefixes of timm's data set names


@dataclass(frozen=True)
class Source:
    """Images to train on and to evaluate on, by name; opened where they are needed, in any process.

    Attributes:
        data: What :func:`open_images` takes.
        validation_data: Other data to evaluate on; None for another split of the same.
        split: Which split to train on.
        validation_split: Which to evaluate on.
        data_dir: Where a named data set is, or is downloaded to.
        download: Download a torchvision data set that is not there.
        class_map: A file with the names of the classes in the order of the model's outputs.
        batch_size: Images in a batch.
        workers: Number of loading processes.
        image_size: Height and width, in pixels, that images are scaled to; None for what the model expects.
        skip_unreadable: Leave out images that cannot be read, rather than stop.
    """

    data: str
    validation_data: str | None = None
    split: str = "train"
    validation_split: str = "validation"
    data_dir: Path | None = None
    download: bool = False
    class_map: Path | None = None
    batch_size: int = 64
    workers: int = 0
    image_size: int | None = None
    skip_unreadable: bool = False

    def __post_init__(self) -> None:
        if self.validation_data is None and not has_splits(self.data, self.split, self.validation_split):
            raise ValueError(
                f"expected subfolders train and validation in {self.data}, or --validation-data: the network would be "
                "evaluated on the images that it is trained on."
            )

    @property
    def training_images(self) -> Any:
        """The data set to train on."""
        return self._open(self.data, self.split)

    @property
    def n_classes(self) -> int:
        """The number of classes.

        Raises:
            ValueError: If the data set does not say.
        """
        names = class_names(self.training_images)
        if names is None:
            raise ValueError(f"the data set {self.data} does not say how many classes it has.")
        return len(names)

    def training(self, model: nn.Module, device: torch.device) -> Any:
        """Return a loader of shuffled, changed training images."""
        return training_loader(self.training_images, model, **self._loading(device))

    def unchanged(self, model: nn.Module, device: torch.device, seed: int = 0) -> Any:
        """Return a loader of the training images as they are, in random order."""
        dataset = self.training_images
        order = choose_samples(len(dataset), None, seed)
        return subset_loader(dataset, order, model, **self._loading(device))

    def evaluation(self, model: nn.Module, device: torch.device, num_samples: int | None = None, seed: int = 0) -> Any:
        """Return a loader of the images to evaluate on: all of them in order, or a random subset."""
        images = self._open(self.validation_data or self.data, self.validation_split)
        if num_samples is None:
            return evaluation_loader(images, model, **self._loading(device))
        return subset_loader(images, choose_samples(len(images), num_samples, seed), model, **self._loading(device))

    def __str__(self) -> str:
        return described(self.validation_data or self.data, self.validation_split, self.image_size)

    @property
    def trained_on(self) -> str:
        """What the training images are called in results."""
        return described(self.data, self.split, self.image_size)

    def _open(self, data: str, split: str) -> Any:
        return open_images(
            data,
            split,
            data_dir=self.data_dir,
            download=self.download,
            class_map=self.class_map,
            skip_unreadable=self.skip_unreadable,
        )

    def _loading(self, device: torch.device) -> dict[str, Any]:
        return {"batch_size": self.batch_size, "workers": self.workers, "device": device}


def open_images(
    data: str,
    split: str,
    *,
    data_dir: Path | None = None,
    download: bool = False,
    class_map: Path | None = None,
    skip_unreadable: bool = False,
) -> Any:
    """Open a data set of images.

    Args:
        data: A folder or a zip file with a subfolder for each class, "digits" for scikit-learn's, or a data set as timm
            names it, such as ``torch/cifar10``. A folder or zip file may have its splits as subfolders.
        split: Which split.
        data_dir: Where a named data set is, or is downloaded to.
        download: Download a torchvision data set that is not there.
        class_map: A file with the names of the subfolders in the order of the model's outputs.
        skip_unreadable: Give an image of a folder or zip file that cannot be read the label of those that are left out,
            rather than raise an OSError that names it.

    Returns:
        A data set of (image, label) as timm's, or a TensorDataset of the digits.

    Raises:
        FileNotFoundError: If there are no such data.
        ValueError: If they have no such split, or cannot be read, or ``class_map`` has other names.
    """
    path = Path(data)
    if data == "digits":
        if split not in SPLITS:
            raise ValueError(f"expected --split train or test for the digits, got {split!r}.")
        return Digits(*load_digits("train" if split in TRAINING_SPLITS else "test"))
    prefix = data.partition("/")[0].lower()
    named = not path.exists() and "/" in data and prefix in _ELSEWHERE
    if not named and not path.is_dir() and not (path.is_file() and zipfile.is_zipfile(path)):
        raise FileNotFoundError(
            f"expected --data as a folder or zip file with a subfolder of images per class, 'digits', or a name such "
            f"as torch/cifar10, got {data!r}, which is none of these."
        )
    if named and prefix == "torch" and data_dir is None:
        raise ValueError(f"--data {data} needs --data-dir DIR, where it is or (with --download) should go.")
    from timm.data import ImageDataset, create_dataset

    if class_map is not None and not named:
        _check_class_map(class_map, class_names(open_images(data, split)) or ())
    if path.is_file():
        return Files(ZipReader(path, split, class_map), skip_unreadable)
    root = data_dir if named else path
    options: dict[str, Any] = {"class_map": str(class_map)} if class_map is not None else {}
    try:
        dataset = create_dataset(
            data if named else "",
            root=str(root) if root is not None else None,
            split=split,
            download=download,
            **options,
        )
    except (RuntimeError, AssertionError) as error:
        missing = prefix == "torch" and not download and "not found" in str(error)
        fix = " Pass --download to get it." if missing else ""
        raise ValueError(f"--data {data}: {str(error).rstrip('.')}.{fix}") from error
    return Files(dataset.reader, skip_unreadable) if type(dataset) is ImageDataset else dataset


def _check_class_map(class_map: Path, folders: Sequence[str]) -> None:
    """Refuse a class map with names that are no folder's beside folders that have none: it may well be a misspelling.

    A map of some of the folders chooses those, and one of more classes than there are images of is right too.
    """
    from timm.data.readers.class_map import load_class_map

    known = load_class_map(str(class_map))
    unknown = [folder for folder in folders if folder not in known]
    wrong = sorted(set(known) - set(folders))
    if unknown and wrong:
        raise ValueError(
            f"expected names of subfolders in --class-map {class_map}, got {wrong[0]!r}, which is none, and no line "
            f"for {unknown[0]!r}."
        )


def has_splits(data: str, *names: str) -> bool:
    """Tell whether data have splits, of these names or the usual ones, or are a folder or zip file of classes."""
    path, splits = Path(data), {*SPLITS, *names}
    if path.is_dir():
        return any((path / name).is_dir() for name in splits)
    if not zipfile.is_zipfile(path):
        return True
    with zipfile.ZipFile(path) as archive:
        return any(folder in splits for name in archive.namelist() for folder in PurePosixPath(name).parts[:-2])


def described(data: str, split: str, image_size: int | None) -> str:
    """Name data as results do."""
    scaled = f", scaled to {image_size}x{image_size} pixels" if image_size is not None else ""
    return f"{data}{f', split {split}' if has_splits(data, split) else ''}{scaled}"


def refuse_scaled_digits(dataset: Any, image_size: int | None) -> None:
    """Refuse to scale the digits, which are tensors already.

    Raises:
        ValueError: If a size is given for them.
    """
    if isinstance(dataset, TensorDataset) and image_size is not None:
        raise ValueError(f"the digits are not scaled: expected no image size, got {image_size}.")


def class_names(dataset: Any) -> Sequence[str] | None:
    """Return the names of a data set's classes in the order of their labels, or None if it does not say."""
    index = getattr(getattr(dataset, "reader", None), "class_to_idx", None)
    return sorted(index, key=index.__getitem__) if index else getattr(dataset, "classes", None)
