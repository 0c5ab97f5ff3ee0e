"""Image files of a folder or an archive, in the form of timm's readers."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image
from torch.utils.data import Dataset

from resnet_lesion.loading.archives import Container, container, is_hidden
from resnet_lesion.loading.classes import labels_of
from resnet_lesion.loading.loaders import SMALL
from resnet_lesion.loading.pixels import EXTENSIONS, read_pixels
from resnet_lesion.runs.data import IGNORE_INDEX

TRAINING_SPLITS = ("train", "training")


_EVALUATION_SPLITS = ("validation", "val", "valid", "eval", "evaluation", "test")


SPLITS = (*TRAINING_SPLITS, *_EVALUATION_SPLITS)


class Reader:
    """The images of a folder or an archive, in the form of timm's readers: the last folder of an image is its class.

    Hidden files and folders, and what systems put beside one's own, are left out. The images come in timm's natural
    order of their names.

    Args:
        path: The folder, zip file or tar archive.
        split: Which of its folders to read, if it has any of splits.
        class_map: A file with the names of the classes, one a line; default the names found, in timm's order.
        classes: A file with the names of the model's outputs, or the name of such a list.

    Raises:
        FileNotFoundError: If there is no such folder or archive.
        OSError: If a folder cannot be read.
        ValueError: If there are no images, or none of the split, or some are beside the folders of others; if the
            archive is damaged, or the class map or the list of outputs does not fit.
    """

    def __init__(
        self, path: Path, split: str, class_map: Path | None = None, classes: str | Path | None = None
    ) -> None:
        from timm.utils.misc import natural_key

        folder = _folder_of_split(path, split)
        self._files = images_in(folder or path)
        names = _of_split(self._files.names, split) if folder is None else self._files.names
        if not names:
            raise ValueError(
                f"data={str(path)!r}: Found 0 images of split={split!r} in subfolders. "
                f"Supported image extensions are {', '.join(EXTENSIONS)}."
            )
        if class_map is None:
            _refuse_strays(names)
        folders = [_parent(name).rpartition("/")[2] for name in names]
        self.class_to_idx = labels_of(folders, class_map=class_map, classes=classes)
        of_class = [
            (name, self.class_to_idx[folder])
            for name, folder in zip(names, folders, strict=True)
            if folder in self.class_to_idx
        ]
        self.samples = sorted(of_class, key=lambda sample: (natural_key(sample[0]), sample[0]))

    def __getitem__(self, index: int) -> tuple[io.BytesIO, int]:
        name, label = self.samples[index]
        return io.BytesIO(self._files.read(name)), label

    def __len__(self) -> int:
        return len(self.samples)

    def filename(self, index: int, basename: bool = False, absolute: bool = False) -> str:
        """Return an image's name in the folder or archive."""
        name = self.samples[index][0]
        return PurePosixPath(name).name if basename else name


class Files(Dataset[tuple[Any, int]]):
    """Image files, as timm's ImageDataset, which however counts the next image twice where one cannot be read.

    Args:
        reader: timm's reader of (file, label), or ours.
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
                image = read_pixels(file)
        except Exception as error:  # whatever a damaged file makes Pillow and zipfile raise
            if not self._skip_unreadable:
                raise OSError(
                    f"the image {name!r} cannot be read: {error}. Repair or delete it, or leave such images out with "
                    "skip_unreadable=True."
                ) from error
            image, label = Image.new("RGB", (SMALL, SMALL)), IGNORE_INDEX
        return image if self.transform is None else self.transform(image), label


def images_in(path: Path) -> Container:
    """Return the image files of a folder or an archive.

    Raises:
        FileNotFoundError: If there is no such folder or archive.
    """
    found = container(path, _is_image)
    if found is None:
        raise FileNotFoundError(
            "expected data= as a folder or zip file with a subfolder of images per class, a tar archive of one, "
            f"'digits', or a name such as torch/cifar10, got {str(path)!r}, which is none of these."
        )
    return found


def has_splits(path: Path, splits: Iterable[str]) -> bool:
    """Tell whether a folder or archive has any of these splits, rather than classes only.

    Raises:
        FileNotFoundError: If there is no such folder or archive.
    """
    splits = set(splits)
    return any(_holds_folders(path / name) for name in splits) or not splits.isdisjoint(
        _split_folders(images_in(path).names)
    )


def _folder_of_split(path: Path, split: str) -> Path | None:
    """Return the folder of a split at the top of another, without a look at all other files, which may be millions."""
    return next((path / name for name in _synonyms(split) if _holds_folders(path / name)), None)


def _holds_folders(path: Path) -> bool:
    return path.is_dir() and any(entry.is_dir() and not is_hidden(entry.name) for entry in path.iterdir())


def _synonyms(split: str) -> tuple[str, ...]:
    """Return the names that a split's folder may have, its own first."""
    return (split, *next((group for group in (TRAINING_SPLITS, _EVALUATION_SPLITS) if split in group), ()))


def _split_folders(names: Sequence[str]) -> set[str]:
    """Return the names of the folders that hold folders of images, which splits do."""
    return {folder.name for parent in _parents(names) for folder in parent.parents}


def _parents(names: Sequence[str]) -> set[PurePosixPath]:
    # far fewer than names, of which there may be millions
    return {PurePosixPath(parent) for parent in {_parent(name) for name in names}}


def _parent(name: str) -> str:
    return name.rpartition("/")[0]


def _is_image(name: str) -> bool:
    return name.lower().endswith(EXTENSIONS) and not any(map(is_hidden, name.split("/")))


def _of_split(names: Sequence[str], split: str) -> list[str]:
    """Return the names below a folder of the split, or of one of its synonyms; all if no folder is a split's."""
    folders = _split_folders(names)
    found = next((name for name in _synonyms(split) if name in folders), None)
    if found is None:
        return [] if split not in SPLITS or folders & set(SPLITS) else list(names)
    parents = _parents(names)
    roots = {folder for parent in parents for folder in parent.parents if folder.name == found}
    inside = {str(parent) for parent in parents if roots & {parent, *parent.parents}}
    return [name for name in names if _parent(name) in inside]


def _refuse_strays(names: Sequence[str]) -> None:
    """Refuse images that have no class: in no folder, or in one that holds the folders of others."""
    parents = _parents(names)
    above = {"", *(str(folder) for parent in parents for folder in parent.parents)}
    stray = next((name for name in names if _parent(name) in above), None)
    if stray is not None:
        raise ValueError(
            f"expected each image in the folder of its class, got {stray!r} beside such folders. Move or delete it, or "
            "list the classes' folders in class_map=."
        )
