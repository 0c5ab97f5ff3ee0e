"""Images by name or path, read by timm: a folder or zip file with a subfolder for each class, digits, CIFAR-10."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

from resnet_lesion.data import LEFT_OUT
from resnet_lesion.digits import load_digits

if TYPE_CHECKING:
    from torch import nn

_TRAINING_SPLITS = ("train", "training")
_EVALUATION_SPLITS = ("validation", "val", "valid", "eval", "evaluation", "test")
_SPLITS = (*_TRAINING_SPLITS, *_EVALUATION_SPLITS)
_ELSEWHERE = ("torch", "hfds", "hfids", "tfds", "wds")  # prefixes of timm's data set names
_EXTENSIONS = (".png", ".jpg", ".jpeg")  # timm's own
_SMALL = 64  # pixels up to which images are shifted as He et al. do on CIFAR, rather than cut out at random scales


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
        if split not in _SPLITS:
            raise ValueError(f"expected --split train or test for the digits, got {split!r}.")
        return _Digits(*load_digits("train" if split in _TRAINING_SPLITS else "test"))
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
        return _Files(ZipReader(path, split, class_map), skip_unreadable)
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
    return _Files(dataset.reader, skip_unreadable) if type(dataset) is ImageDataset else dataset


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
    path, splits = Path(data), {*_SPLITS, *names}
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


def choose_samples(size: int, num_samples: int | None, seed: int) -> list[int]:
    """Choose images of a data set at random, the same ones for the same seed.

    Args:
        size: How many there are.
        num_samples: How many to choose; None for all.
        seed: Seed of the choice.

    Returns:
        Their indices in random order, so that the first few are a random sample too, also of a data set that is sorted
        by class.

    Raises:
        ValueError: If there are not so many.
    """
    num_samples = size if num_samples is None else num_samples
    if not 1 <= num_samples <= size:
        raise ValueError(f"expected a number of samples from 1 to {size}, all images there are, got {num_samples}.")
    return torch.randperm(size, generator=torch.Generator().manual_seed(seed))[:num_samples].tolist()


class ZipReader:
    """The images of a zip file, in the form of timm's readers: the last folder of an image is its class.

    Args:
        path: The file.
        split: Which of its top folders to read, if it has such.
        class_map: A file with the names of the classes, one a line; default the names there are, in timm's order.

    Raises:
        ValueError: If there are no images, or none of the split.
    """

    def __init__(self, path: Path, split: str, class_map: Path | None = None) -> None:
        from timm.data.readers.class_map import load_class_map
        from timm.utils.misc import natural_key

        self._path = path
        self._archive: zipfile.ZipFile | None = None
        self._opened_by = 0
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.lower().endswith(_EXTENSIONS)]
        names = _of_split(names, split)
        labels = [PurePosixPath(name).parent.name for name in names]
        if class_map is None:
            self.class_to_idx = {name: i for i, name in enumerate(sorted(set(labels), key=natural_key))}
        else:
            self.class_to_idx = load_class_map(str(class_map))
        self.samples = [
            (name, self.class_to_idx[label])
            for name, label in zip(names, labels, strict=True)
            if label in self.class_to_idx
        ]
        if not self.samples:
            raise ValueError(f"{str(path)!r} has no image (*.png, *.jpg, *.jpeg) of split {split!r} in a folder.")

    def __getitem__(self, index: int) -> tuple[io.BytesIO, int]:
        name, label = self.samples[index]
        if self._archive is None or self._opened_by != os.getpid():
            # each process opens its own: those that are forked would share the place in the file
            self._archive, self._opened_by = zipfile.ZipFile(self._path), os.getpid()
        return io.BytesIO(self._archive.read(name)), label

    def __len__(self) -> int:
        return len(self.samples)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_archive": None}

    def filename(self, index: int, basename: bool = False, absolute: bool = False) -> str:
        """Return an image's name in the file."""
        name = self.samples[index][0]
        return PurePosixPath(name).name if basename else name


def evaluation_loader(dataset: Any, model: nn.Module, *, batch_size: int, workers: int, device: torch.device) -> Any:
    """Return timm's loader of images as the model expects them (its ``pretrained_cfg``), in order."""
    if _is_tensors(dataset):
        return DataLoader(dataset, batch_size)
    from timm.data import create_loader, resolve_model_data_config

    return create_loader(
        dataset,
        batch_size=batch_size,
        use_prefetcher=device.type == "cuda",
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


def training_loader(dataset: Any, model: nn.Module, *, batch_size: int, workers: int, device: torch.device) -> Any:
    """Return timm's loader of shuffled images, each shifted or cut out at random and, but for digits, mirrored.

    Images of up to 64 pixels are padded by an eighth of their size and cut out again (He et al. 2015, section 4.2);
    larger ones are cut out at random scales, as timm does by default. The last images that fill no batch are left out.
    The loading processes end with the epoch, so that each epoch's images follow from the random state at its beginning.
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
    if size <= _SMALL:
        composed: Any = create_transform(is_training=True, no_aug=True, use_prefetcher=prefetched, **config)
        whole = composed.transforms
        changes = [transforms.RandomCrop(size, padding=size // 8), transforms.RandomHorizontalFlip()]
        # to the right size first, to a tensor last
        dataset.transform = transforms.Compose([*whole[:2], *changes, *whole[2:]])
    return loader


def _is_tensors(dataset: Any) -> bool:
    return isinstance(dataset.dataset if isinstance(dataset, Subset) else dataset, TensorDataset)


class _Files(Dataset[tuple[Any, int]]):
    """Image files, as in timm's ImageDataset, but that one counts the next image twice where one cannot be read.

    Args:
        reader: timm's reader of (file, label).
        skip_unreadable: Whether to label such an image as one to leave out.
    """

    def __init__(self, reader: Any, skip_unreadable: bool) -> None:
        self.reader = reader
        self.transform: Any = None  # timm's loader puts its transform there
        self._skip_unreadable = skip_unreadable

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        name = self.reader.filename(index)  # an IndexError ends iteration
        try:
            file, label = self.reader[index]
            with file:
                image = Image.open(file).convert("RGB")
        except Exception as error:  # whatever a damaged file makes Pillow and zipfile raise
            if not self._skip_unreadable:
                raise OSError(
                    f"the image {name!r} cannot be read: {error}. Mend or delete it, or leave such images out with "
                    "--skip-unreadable."
                ) from error
            image, label = Image.new("RGB", (_SMALL, _SMALL)), LEFT_OUT
        return image if self.transform is None else self.transform(image), label


class _Digits(TensorDataset):
    classes = tuple("0123456789")


class _Transformed(Dataset[tuple[Tensor, Tensor]]):
    def __init__(self, dataset: TensorDataset, transform: Any) -> None:
        self._dataset, self._transform = dataset, transform

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image, label = self._dataset[index]
        return self._transform(image), label

    def __len__(self) -> int:
        return len(self._dataset)


def _of_split(names: Sequence[str], split: str) -> list[str]:
    """Return the names below a folder of the split, or of one of its synonyms; all if no folder is a split's."""
    groups = (_TRAINING_SPLITS, _EVALUATION_SPLITS)
    synonyms = next((group for group in groups if split in group), (split,))
    folders = {folder for name in names for folder in PurePosixPath(name).parts[:-2]}
    found = next((folder for folder in (split, *synonyms) if folder in folders), None)
    if found is not None:
        return sorted(name for name in names if found in PurePosixPath(name).parts[:-2])
    return [] if any(folder in group for group in groups for folder in folders) else sorted(names)
