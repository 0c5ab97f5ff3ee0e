"""Image files in folders and zip archives, in the form of timm's readers."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image
from torch.utils.data import Dataset

from resnet_lesion.loading.loaders import SMALL
from resnet_lesion.runs.data import IGNORE_INDEX

TRAINING_SPLITS = ("train", "training")


_EVALUATION_SPLITS = ("validation", "val", "valid", "eval", "evaluation", "test")


SPLITS = (*TRAINING_SPLITS, *_EVALUATION_SPLITS)


_EXTENSIONS = (".png", ".jpg", ".jpeg")  # timm's own


class ZipReader:
    """The images of a zip file, in the form of timm's readers: the last folder of an image is its class.

    Args:
        path: The file.
        split: Which of its top folders to read, if it has any.
        class_map: A file with the names of the classes, one a line; default the names found, in timm's order.

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
            # each process opens its own: forked ones would share the position in the file
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


class Files(Dataset[tuple[Any, int]]):
    """Image files, as timm's ImageDataset, which however counts the next image twice where one cannot be read.

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
                    f"the image {name!r} cannot be read: {error}. Repair or delete it, or leave such images out with "
                    "skip_unreadable=True."
                ) from error
            image, label = Image.new("RGB", (SMALL, SMALL)), IGNORE_INDEX
        return image if self.transform is None else self.transform(image), label


def _of_split(names: Sequence[str], split: str) -> list[str]:
    """Return the names below a folder of the split, or of one of its synonyms; all if no folder is a split's."""
    groups = (TRAINING_SPLITS, _EVALUATION_SPLITS)
    synonyms = next((group for group in groups if split in group), (split,))
    folders = {folder for name in names for folder in PurePosixPath(name).parts[:-2]}
    found = next((folder for folder in (split, *synonyms) if folder in folders), None)
    if found is not None:
        return sorted(name for name in names if found in PurePosixPath(name).parts[:-2])
    return [] if any(folder in group for group in groups for folder in folders) else sorted(names)
