"""What is looked at before a file's variables are read: whether it is whole, and about nothing but itself.

HDF5 keeps no checksum of much that a netCDF file holds, and reads what a file asks for: other files, or memory for
arrays that a few bytes declare. So a result is sealed with a digest of the whole file, which stands behind what HDF5
reads. Whoever edits the file with another tool writes it without the seal, and it opens as any other netCDF file.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator
from typing import Any

import netCDF4

_MARK = b"\nresnet-lesion sha256 "
_SEAL_LENGTH = len(_MARK) + 64

_HDF5, _CLASSIC = b"\x89HDF\r\n\x1a\n", b"CDF"

# deflate makes at most 1,032 bytes of one
_LARGEST_RATIO, _ALWAYS_FINE = 1032, 64 * 2**20
_SIZE_OF_TEXT = 16  # of the reference that stands for it

# The HDF5 File Format Specification 3.0, IV.A.2.h, the external file list: slots, some of them used, and a heap
_EXTERNAL_FILES = re.compile(rb"\x01\0{3}(?=(?:[^\0].|.[^\0]){2}(.{5}\0{3}))", re.DOTALL)
# IV.A.2.i, the layout of a dataset that is put together from others: the heap that names them
_VIRTUAL = re.compile(rb"[\x04\x05]\x03(?=(.{5}\0{3}))", re.DOTALL)
# IV.A.2.g, a link: version 1, flags that say that there is a type, and the type of an external one
_EXTERNAL_LINK = re.compile(rb"\x01[\x08-\x0f\x18-\x1f]\x40")
# III.G, a heap whose blocks are filtered, so that what is in it does not show
_FILTERED_HEAP = re.compile(rb"FRHP\0.{2}(?!\0\0)", re.DOTALL)


def seal(content: bytes) -> bytes:
    """Return what stands behind a file's content: its SHA-256."""
    return _MARK + hashlib.sha256(content).hexdigest().encode()


def refuse_unfit(content: bytes) -> None:
    """Refuse the bytes of a file that is not netCDF, was damaged, or refers to other files.

    Args:
        content: The whole file.

    Raises:
        ValueError: If it is one of these.
    """
    if not content.startswith((_HDF5, _CLASSIC)):
        raise ValueError("it begins as no netCDF file does")
    end = content[-_SEAL_LENGTH:]
    if (at := end.find(_MARK)) >= 0 and end[at:] != seal(content[: len(content) - len(end) + at]):
        raise ValueError("it is not as it was written, as its digest tells")
    if content.startswith(_HDF5) and _refers_to_others(content):
        raise ValueError("it refers to data in other files, which are not read")


def refuse_inflated(file: netCDF4.Dataset, n_bytes: int) -> None:
    """Refuse an open file whose variables are larger than what its bytes can hold, before memory is taken for them.

    Args:
        file: The file.
        n_bytes: Its size.

    Raises:
        ValueError: If it declares more.
    """
    declared = sum(
        math.prod(map(int, array.shape)) * getattr(array.dtype, "itemsize", _SIZE_OF_TEXT) for array in _arrays(file)
    )
    if declared > max(_ALWAYS_FINE, _LARGEST_RATIO * n_bytes):
        raise ValueError(f"it declares {declared:,} bytes, which its {n_bytes:,} cannot hold")


def _arrays(group: netCDF4.Dataset) -> Iterator[netCDF4.Variable[Any]]:
    yield from group.variables.values()
    for child in group.groups.values():
        yield from _arrays(child)


def _refers_to_others(content: bytes) -> bool:
    """Tell whether HDF5 would read other files: external storage, virtual datasets, or external links."""
    at, base = ((9, 12) if content[8] >= 2 else (13, 24)) if len(content) > 48 else (0, 0)
    if content[at : at + 2] != b"\x08\x08" or any(content[base : base + 8]):
        return True  # addresses of another size, or from elsewhere, would hide the rest; netCDF writes none

    def point_to(signature: bytes, pattern: re.Pattern[bytes]) -> bool:
        addresses = (int.from_bytes(match[1], "little") for match in pattern.finditer(content))
        return any(content.startswith(signature, address) for address in addresses)

    return (
        point_to(b"HEAP", _EXTERNAL_FILES)
        or point_to(b"GCOL", _VIRTUAL)
        or any(_is_external_link(content, match.start()) for match in _EXTERNAL_LINK.finditer(content))
        or _FILTERED_HEAP.search(content) is not None
    )


def _is_external_link(content: bytes, at: int) -> bool:
    """Tell whether what looks like the beginning of an external link is one: a name, a file and a path within it."""
    flags = content[at + 1]
    at += 3 + 8 * bool(flags & 0b100) + bool(flags & 0b10000)
    size = 1 << (flags & 0b11)
    at += size + int.from_bytes(content[at : at + size], "little")
    target = content[at + 2 : at + 2 + int.from_bytes(content[at : at + 2], "little")]
    return target.startswith(b"\0") and target.endswith(b"\0") and target.count(b"\0") == 3
