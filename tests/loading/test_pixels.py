import io

import numpy as np
import pytest
from PIL import Image

from resnet_lesion.loading.pixels import read_pixels

RAMP = np.linspace(0, 65535, 64, dtype=np.uint16)[None].repeat(48, 0)


def written(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    file.seek(0)
    return file


def pixels(file):
    image = read_pixels(file)
    assert image.mode == "RGB"
    return np.asarray(image)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_come_out_as_eight(kind):
    of_eight = pixels(written(Image.fromarray((RAMP >> 8).astype(np.uint8)), "PNG"))
    assert len(np.unique(of_eight)) == 64
    np.testing.assert_array_equal(pixels(written(Image.fromarray(RAMP), kind)), of_eight)


def test_big_endian_sixteen_bits():
    file = written(Image.frombytes("I;16B", RAMP.shape[::-1], RAMP.astype(">u2").tobytes()), "TIFF")
    np.testing.assert_array_equal(pixels(file)[..., 0], RAMP >> 8)


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_thirty_two_bits_are_refused_as_their_range_is_not_known(dtype):
    with pytest.raises(
        ValueError, match=r"32-bit values \(mode [IF]\), whose range it does not say; write it in 8 bits"
    ):
        read_pixels(written(Image.fromarray(RAMP.astype(dtype)), "TIFF"))


def test_colours_are_those_that_timm_and_torchvision_see():
    random = np.random.default_rng(0)
    colours = Image.fromarray(random.integers(256, size=(48, 64, 3), dtype=np.uint8))
    turned = Image.Exif()
    turned[0x0112] = 6
    transparent = colours.copy()
    transparent.putalpha(Image.fromarray((RAMP >> 8).astype(np.uint8)))
    files = [
        written(colours.convert("CMYK"), "JPEG"),
        written(colours, "JPEG", exif=turned),  # not turned upright
        written(transparent, "PNG"),  # its colours also where they are not seen
        written(colours.convert("1"), "PNG"),
        written(colours, "WEBP", lossless=True),
        written(colours, "BMP"),
    ]
    for file in files:
        np.testing.assert_array_equal(pixels(file), np.asarray(Image.open(file).convert("RGB")))


def test_a_palette_with_transparency_is_read_without_a_warning():
    image = Image.new("P", (4, 4))
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.putpixel((0, 0), 1)
    file = written(image, "PNG", transparency=bytes([0, 128]))
    found = pixels(file)
    assert found[0, 0].tolist() == [0, 255, 0]
    assert found[1, 1].tolist() == [255, 0, 0]
