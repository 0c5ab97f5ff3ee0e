"""Images as files of a folder or an archive."""

import tarfile
import zipfile

import numpy as np
from PIL import Image


def write_images(folder, splits=("train", "test"), classes=("cat", "dog"), n=3, size=32):
    random = np.random.default_rng(0)
    for split in splits:
        for label in classes:
            (folder / split / label).mkdir(parents=True, exist_ok=True)
            for i in range(n):
                pixels = random.integers(0, 256, (size, size, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / split / label / f"{i}.png")
    return folder


def zipped(folder, path):
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*.png")):
            archive.write(file, file.relative_to(folder))
    return path


def tarred(folder, path):
    """Pack a folder as ``tar -C folder -cf path .`` does, compressed as its suffix says."""
    kind = {".tar": "", ".gz": "gz", ".xz": "xz", ".bz2": "bz2"}[path.suffix]
    with tarfile.open(path, f"w:{kind}") as archive:
        archive.add(folder, ".")
    return path
