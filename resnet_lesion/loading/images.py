"""Images by name or path: a folder or archive with a subfolder for each class, digits, or a data set that timm has."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import TensorDataset

from resnet_lesion.digits import load_digits
from resnet_lesion.loading.classes import read_names
from resnet_lesion.loading.files import SPLITS, TRAINING_SPLITS, Files, Reader, has_splits
from resnet_lesion.loading.loaders import Digits, evaluation_loader, shuffled_loader, training_loader
from resnet_lesion.text import harmless

if TYPE_CHECKING:
    from torch import nn


_ELSEWHERE = ("torch", "hfds", "hfids", "tfds", "wds")  # prefixes of timm's data set names


@dataclass(frozen=True)
class ImageSet:
    """Images by name, and how they are loaded; opened where they are needed, in any process.

    Attributes:
        data: A folder, zip file or tar archive with a subfolder for each class, "digits" for scikit-learn's, or a data
            set as timm names it, such as ``torch/cifar10``. A folder or archive may have its splits as subfolders.
        split: Which split.
        data_dir: Where a named data set is, or is downloaded to.
        download: Download a torchvision data set that is missing.
        class_map: A file with the names of the subfolders in the order of the model's outputs.
        classes: Where there are images of some of the model's outputs only: a file with the names of all outputs in
            order, one a line, or a list that timm has, such as ``imagenet-1k``. A subfolder is the output of its name.
        batch_size: Images in a batch.
        workers: Number of loading processes.
        image_size: Height and width, in pixels, that images are scaled to; None for what the model expects.
        skip_unreadable: Give an image of a folder or archive that cannot be read the label of those that are left out,
            rather than raise an OSError that names it.
    """

    data: str
    split: str = "validation"
    data_dir: Path | None = None
    download: bool = False
    class_map: Path | None = None
    classes: str | None = None
    batch_size: int = 64
    workers: int = 0
    image_size: int | None = None
    skip_unreadable: bool = False

    def open(self) -> Any:
        """Open the data set.

        Returns:
            A data set of (image, label) as timm's, or a TensorDataset of the digits.

        Raises:
            FileNotFoundError: If there is no such data, class map or list of outputs.
            ValueError: If it has no such split, or cannot be read, some images have no class, ``class_map`` or
                ``classes`` has other names or is not taken by this kind of data, or the digits are to be scaled.
        """
        prefix, slash, _ = self.data.partition("/")
        if self.data == "digits":
            self._refuse("class_map", "classes")
            return self._digits()
        if Path(self.data).exists() or not slash or prefix.lower() not in _ELSEWHERE:
            reader = Reader(Path(self.data), self.split, self.class_map, self.classes)
            return Files(reader, self.skip_unreadable)
        return self._of_timm(is_torch=prefix.lower() == "torch")

    def _refuse(self, *parameters: str) -> None:
        for parameter in parameters:
            if getattr(self, parameter) is not None:
                raise ValueError(
                    f"expected {parameter}= with a folder or archive of images only: data={self.data!r} numbers its "
                    "classes itself."
                )

    def _of_timm(self, is_torch: bool) -> Any:
        if is_torch and self.data_dir is None:
            raise ValueError(f"data={self.data!r} needs data_dir=, where it is or (with download=True) should go.")
        self._refuse("classes", *(["class_map"] if is_torch else []))
        from timm.data import ImageDataset, create_dataset

        # timm's own reader of class maps would unpickle some of them
        names = None if self.class_map is None else read_names(self.class_map, "class_map")
        options: dict[str, Any] = {} if names is None else {"class_map": {name: i for i, name in enumerate(names)}}
        try:
            dataset = create_dataset(
                self.data,
                root=str(self.data_dir) if self.data_dir is not None else None,
                split=self.split,
                download=self.download,
                **options,
            )
        except (RuntimeError, AssertionError) as error:
            missing = is_torch and not self.download and "not found" in str(error)
            fix = " Pass download=True to get it." if missing else ""
            raise ValueError(f"data={self.data!r}: {str(error).rstrip('.')}.{fix}") from error
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
        if self.validation_data is not None and not Path(self.validation_data).exists():
            common |= {"class_map": None, "classes": None}  # other data than folders number their classes themselves
        return ImageSet(**common)

    def _open_validation(self) -> Any:
        try:
            images = self.validation.open()
        except (FileNotFoundError, ValueError) as error:
            parameters = ("split",) if self.validation_data is None else ("split", "data")
            kind = FileNotFoundError if isinstance(error, FileNotFoundError) else ValueError
            raise kind(_named_for_validation(str(error), *parameters)) from error
        if Path(self.data).exists():  # timm's data sets number the classes of all their splits alike
            self._refuse_other_classes(class_names(images) or ())
        return images

    def _refuse_other_classes(self, evaluated: Sequence[str]) -> None:
        trained = class_names(self.open()) or ()
        other_names = not set(trained).isdisjoint(evaluated) and list(trained) != list(evaluated)
        if len(trained) != len(evaluated) or other_names:
            raise ValueError(
                f"expected the {len(trained)} classes of {self} in {self.validation} too, got {len(evaluated)} classes "
                "or other names, so that the labels differ. Pass class_map=, a file that lists all of them."
            )

    def training(self, model: nn.Module, device: torch.device) -> Any:
        """Return a loader of shuffled, augmented training images."""
        return training_loader(self.open(), model, **self.loading(device))

    def unchanged(self, model: nn.Module, device: torch.device, seed: int = 0) -> Any:
        """Return a loader of the training images as they are, in random order."""
        return shuffled_loader(self.open(), model, seed=seed, **self.loading(device))

    def evaluation(self, model: nn.Module, device: torch.device, num_samples: int | None = None, seed: int = 0) -> Any:
        """Return a loader of the images to evaluate on: all of them in order, or a random subset.

        Raises:
            ValueError: If their classes are not those to train on.
        """
        images, loading = self._open_validation(), self.loading(device)
        if num_samples is None:
            return evaluation_loader(images, model, **loading)
        return shuffled_loader(images, model, num_samples=num_samples, seed=seed, **loading)


def _named_for_validation(message: str, *parameters: str) -> str:
    """Name the parameters in an ImageSet's message as a Source has them."""
    words = "|".join(f"{parameter}=" for parameter in parameters)
    return re.sub(rf"(?<![^\s(])(?={words})", "validation_", message)


def _has_splits(data: str, *names: str) -> bool:
    """Tell whether data has splits, of these names or the usual ones, or is a folder or archive of classes."""
    return data == "digits" or not Path(data).exists() or has_splits(Path(data), (*SPLITS, *names))


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
