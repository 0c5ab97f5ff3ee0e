"""Images as files of a folder or a zip file."""

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
