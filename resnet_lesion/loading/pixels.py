"""An image file as eight-bit RGB: what timm and torchvision make of it, except where they would clip it to white."""

from __future__ import annotations

from typing import IO

import numpy as np
from PIL import Image

EXTENSIONS = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".jp2", ".avif"),
    *(".heic", ".heif", ".jxl"),  # Pillow needs a plug-in for these; better an error than to leave them out
)


def read_pixels(file: IO[bytes]) -> Image.Image:
    """Read an image.

    As timm and torchvision do, it takes the first of several images in a file, lets transparency go, converts CMYK by
    Pillow's formula, and does not look at the orientation in EXIF data: networks were trained on images read like that.
    Sixteen-bit grey values, which they clip at 255, become eight-bit ones here.

    Args:
        file: The file.

    Returns:
        The image, in mode "RGB".

    Raises:
        OSError: If Pillow cannot read it.
        ValueError: If it has 32 bits, whose range no file says.
    """
    image: Image.Image = Image.open(file)
    # Pillow has 16-bit PGM files, and its older versions PNG files too, in 32-bit integers
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise ValueError(f"it has 32-bit values (mode {image.mode}), whose range it does not say; write it in 8 bits")
    elif image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # Pillow warns of any other way
    return image.convert("RGB")
