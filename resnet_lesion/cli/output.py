"""Where a command writes: checked before the work begins, and another place where it cannot be written after all."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    import xarray as xr

NETCDF = (".nc", ".nc4")

HTML = (".html", ".htm")

# as no folder is called; somebody who writes them wants a file
_OF_FILES = (*NETCDF, *HTML, *(".csv", ".jpg", ".json", ".pdf", ".png", ".pt", ".pth", ".safetensors", ".svg", ".zip"))


def check_out(path: Path, suffixes: Sequence[str], sources: Sequence[Path] = ()) -> None:
    """Refuse a file that cannot be written, before the work is done.

    Args:
        path: What ``--out`` says.
        suffixes: What its name may end in, if it has a suffix at all.
        sources: The files that are read, which it must not replace.

    Raises:
        OSError: If it cannot be written.
        ValueError: If it has another suffix, or is one of the sources.
    """
    from resnet_lesion.results.storage import whole_file

    if path.is_dir():
        raise IsADirectoryError(f"expected a file for --out, got the folder {str(path)!r}.")
    if path.exists() and not path.is_file():
        return  # a pipe or a device, which only writing to it shows
    if path.suffix and path.suffix.lower() not in suffixes:
        raise ValueError(f"expected a name that ends in {' or '.join(suffixes)} for --out, got {str(path)!r}.")
    if any(source.exists() and path.exists() and source.samefile(path) for source in sources):
        raise ValueError(f"--out {str(path)!r} is one of the files that are read, and would replace it. Take another.")
    folder = Path(os.path.realpath(path)).parent  # where a link points
    if not folder.is_dir():
        name = path.parent if not path.is_symlink() else folder
        raise FileNotFoundError(f"the folder {str(name)!r} of --out does not exist; create it first.")
    try:
        with suppress(StopIteration), whole_file(path):
            raise StopIteration  # it can be written, and nothing is left of it
    except OSError as error:
        raise OSError(f"--out {str(path)!r} cannot be written: {error.strerror or error}.") from error


def check_folder(path: Path) -> None:
    """Refuse a folder that cannot be written to, before the work is done.

    Raises:
        OSError: If it cannot.
        ValueError: If its name is that of a file.
    """
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(f"expected a folder to write to, got the file {str(path)!r}.")
    if not path.exists() and path.suffix.lower() in _OF_FILES:
        raise ValueError(f"expected a folder to write to, got {str(path)!r}, which is called like a file.")
    existing = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise OSError(f"{str(path)!r} cannot be written to: {error.strerror or error}.") from error


def keep(result: xr.Dataset | xr.DataTree, path: Path, folder: Path | None = None) -> None:
    """Write a result; where that fails, write it elsewhere, as it may have taken hours.

    Args:
        result: What to write.
        path: Where to.
        folder: Where else; then in the folder for temporary files.

    Raises:
        OSError: If it could not be written to the path. It says where the result is instead.
    """
    from resnet_lesion.results import storage

    try:
        storage.save(result, path)
    except Exception as error:  # whatever a disk, a network or an attribute makes netCDF raise: the result is there
        kept = _kept_elsewhere(result, folder)
        fate = "nor anywhere else" if kept is None else f"it is kept in {str(kept)!r}, move it from there"
        cause = " ".join(f"{type(error).__name__}: {error}".split())
        raise OSError(f"the result could not be written to --out {str(path)!r}; {fate} ({cause:.300})") from error


def _kept_elsewhere(result: xr.Dataset | xr.DataTree, folder: Path | None) -> Path | None:
    from resnet_lesion.results import storage

    for place in filter(None, (folder, Path(tempfile.gettempdir()))):
        with suppress(Exception):  # the next place may do
            own = Path(tempfile.mkdtemp(prefix="resnet-lesion-", dir=place))
            try:
                storage.save(result, own / "result.nc")
            except BaseException:
                own.rmdir()
                raise
            return own / "result.nc"
    return None


def words_beside(path: Path) -> TextIO:
    """Return where a command's words go: to the standard output, unless that is the file that it writes."""
    with suppress(OSError, ValueError, AttributeError):  # there may be no such file, or no standard output
        if os.path.samestat(path.stat(), os.fstat(sys.stdout.fileno())):
            return sys.stderr
    return sys.stdout
