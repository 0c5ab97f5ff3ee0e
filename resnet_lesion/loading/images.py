"""Images by name or path, read by timm: a folder or zip file with a subfolder for each class, digits, CIFAR-10."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import TensorDataset

from resnet_lesion.digits import load_digits
from resnet_lesion.loading.files import SPLITS, TRAINING_SPLITS, Files, ZipReader
from resnet_lesion.loading.loaders import Digits, evaluation_loader, shuffled_loader, training_loader
from resnet_lesion.text import harmless

if TYPE_CHECKING:
    from torch import nn


_ELSEWHERE = ("torch", "hfds", "hfids", "tfds", "wds")  # prefixes of timm's data set names


@dataclass(frozen=True)
class ImageSet:
    """Images by name, and how they are loaded; opened where they are needed, in any process.

    Attributes:
        data: A folder or a zip file with a subfolder for each class, "digits" for scikit-learn's, or a data set as timm
            names it, such as ``torch/cifar10``. A folder or zip file may have its splits as subfolders.
        split: Which split.
        data_dir: Where a named data set is, or is downloaded to.
        download: Download a torchvision data set that is missing.
        class_map: A file with the names of the subfolders in the order of the model's outputs.
        batch_size: Images in a batch.
        workers: Number of loading processes.
        image_size: Height and width, in pixels, that images are scaled to; None for what the model expects.
        skip_unreadable: Give an image of a folder or zip file that cannot be read the label of those that are left out,
            rather than raise an OSError that names it.
    """

    data: str
    split: str = "validation"
    data_dir: Path | None = None
    download: bool = False
    class_map: Path | None = None
    batch_size: int = 64
    workers: int = 0
    image_size: int | None = None
    skip_unreadable: bool = False

    def open(self) -> Any:
        """Open the data set.

        Returns:
            A data set of (image, label) as timm's, or a TensorDataset of the digits.

        Raises:
            FileNotFoundError: If there is no such data.
            ValueError: If it has no such split, or cannot be read, ``class_map`` has other names, or the digits are to
                be scaled.
        """
        data, path = self.data, Path(self.data)
        if data == "digits":
            return self._digits()
        prefix = data.partition("/")[0].lower()
        named = not path.exists() and "/" in data and prefix in _ELSEWHERE
        if not named and not path.is_dir() and not (path.is_file() and zipfile.is_zipfile(path)):
            raise FileNotFoundError(
                "expected data= as a folder or zip file with a subfolder of images per class, 'digits', or a name such "
                f"as torch/cifar10, got {data!r}, which is none of these."
            )
        if named and prefix == "torch" and self.data_dir is None:
            raise ValueError(f"data={data!r} needs data_dir=, where it is or (with download=True) should go.")
        from timm.data import ImageDataset, create_dataset

        if self.class_map is not None and not named:
            _check_class_map(self.class_map, class_names(replace(self, class_map=None).open()) or ())
        if path.is_file():
            return Files(ZipReader(path, self.split, self.class_map), self.skip_unreadable)
        root = self.data_dir if named else path
        options: dict[str, Any] = {"class_map": str(self.class_map)} if self.class_map is not None else {}
        try:
            dataset = create_dataset(
                data if named else "",
                root=str(root) if root is not None else None,
                split=self.split,
                download=self.download,
                **options,
            )
        except (RuntimeError, AssertionError) as error:
            missing = prefix == "torch" and not self.download and "not found" in str(error)
            fix = " Pass download=True to get it." if missing else ""
            raise ValueError(f"data={data!r}: {str(error).rstrip('.')}.{fix}") from error
        return Files(dataset.reader, self.skip_unreadable) if type(dataset) is ImageDataset else dataset

    def _digits(self) -> Digits:
        if self.split not in SPLITS:
            raise ValueError(f"expected split='train' or 'test' for the digits, got {self.split!r}.")
        digits = Digits(*load_digits("train" if self.split in TRAINING_SPLITS else "test"))
        refuse_scaled_digits(digits, self.image_size)
        return digits

    @property
    def n_classes(self) -> int:
        """The number of classes.

        Raises:
            ValueError: If the data set does not say.
        """
        names = class_names(self.open())
        if names is None:
            raise ValueError(f"the data set {self.data} does not say how many classes it has.")
        return len(names)

    def loading(self, device: torch.device) -> dict[str, Any]:
        """Return what the loaders of :mod:`resnet_lesion.loading.loaders` need to know."""
        return {"batch_size": self.batch_size, "workers": self.workers, "device": device}

    def __str__(self) -> str:
        """Name the images as results do."""
        split = f", split {self.split}" if _has_splits(self.data, self.split) else ""
        scaled = f", scaled to {self.image_size}x{self.image_size} pixels" if self.image_size is not None else ""
        return harmless(f"{self.data}{split}{scaled}")  # a path may have bytes that no attribute can hold


@dataclass(frozen=True)
class Source(ImageSet):
    """Images to train on, and those to evaluate on.

    Attributes:
        split: Which split to train on.
        validation_data: Other data to evaluate on; None for another split of the same.
        validation_split: Which split to evaluate on.
    """

    split: str = "train"
    validation_data: str | None = None
    validation_split: str = "validation"

    def __post_init__(self) -> None:
        if self.validation_data is None and not _has_splits(self.data, self.split, self.validation_split):
            raise ValueError(
                f"expected subfolders train and validation in {self.data}, or validation_data=: the network would be "
                "evaluated on the images that it is trained on."
            )

    @property
    def validation(self) -> ImageSet:
        """The images to evaluate on."""
        common: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(ImageSet)}
        common |= {"data": self.validation_data or self.data, "split": self.validation_split}
        return ImageSet(**common)

    def training(self, model: nn.Module, device: torch.device) -> Any:
        """Return a loader of shuffled, augmented training images."""
        return training_loader(self.open(), model, **self.loading(device))

    def unchanged(self, model: nn.Module, device: torch.device, seed: int = 0) -> Any:
        """Return a loader of the training images as they are, in random order."""
        return shuffled_loader(self.open(), model, seed=seed, **self.loading(device))

    def evaluation(self, model: nn.Module, device: torch.device, num_samples: int | None = None, seed: int = 0) -> Any:
        """Return a loader of the images to evaluate on: all of them in order, or a random subset."""
        images, loading = self.validation.open(), self.loading(device)
        if num_samples is None:
            return evaluation_loader(images, model, **loading)
        return shuffled_loader(images, model, num_samples=num_samples, seed=seed, **loading)


def _check_class_map(class_map: Path, folders: Sequence[str]) -> None:
    """Refuse a class map that has names without a folder while some folders have no line: probably a misspelling.

    A map of some of the folders selects those, and one with more classes than there are images of is valid too.
    """
    from timm.data.readers.class_map import load_class_map

    known = load_class_map(str(class_map))
    unknown = [folder for folder in folders if folder not in known]
    wrong = sorted(set(known) - set(folders))
    if unknown and wrong:
        raise ValueError(
            f"expected names of subfolders in class_map={str(class_map)!r}, got {wrong[0]!r}, which is not one, and no "
            f"line for {unknown[0]!r}."
        )


def _has_splits(data: str, *names: str) -> bool:
    """Tell whether data has splits, of these names or the usual ones, or is a folder or zip file of classes."""
    path, splits = Path(data), {*SPLITS, *names}
    if path.is_dir():
        return any((path / name).is_dir() for name in splits)
    if not zipfile.is_zipfile(path):
        return True
    with zipfile.ZipFile(path) as archive:
        return any(folder in splits for name in archive.namelist() for folder in PurePosixPath(name).parts[:-2])


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
