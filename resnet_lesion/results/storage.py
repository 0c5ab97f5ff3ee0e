"""Results to netCDF and back, with nothing lost."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import socket
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any, TypeVar, cast

import netCDF4
import xarray as xr
from xarray.backends import NetCDF4DataStore

from resnet_lesion.results.inspection import refuse_inflated, refuse_unfit, seal
from resnet_lesion.results.lesions import refuse_impossible
from resnet_lesion.results.quantities import groups

_T = TypeVar("_T")

# HDF5 can do one thing at a time
_one_at_a_time = Lock()

# files that this process is writing at this moment
_being_written: set[str] = set()

_DAY = 86_400.0  # seconds

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def save(result: xr.Dataset | xr.DataTree, path: str | os.PathLike[str]) -> None:
    """Write a result to a netCDF-4 file.

    The file appears under its name only when it is complete; an existing file is replaced, and a pipe written to. It
    carries checksums, so that :func:`open` refuses it if a bit of it has changed.

    Args:
        result: What an analyzer or :func:`study` returned.
        path: Where to; the folder must exist.

    Raises:
        TypeError: If the result is something else.
        ValueError: If netCDF has no way to write it, such as a variable with a slash in its name.
        OSError: If the file cannot be written. Nothing is left behind.

    Example:
        >>> import tempfile, resnet_lesion as rl
        >>> counts = rl.path_counts(3).to_dataset(name="path_count")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     rl.save(counts, f"{folder}/counts.nc")
        ...     rl.open(f"{folder}/counts.nc").identical(counts)
        True
    """
    if not isinstance(result, xr.Dataset | xr.DataTree):
        raise TypeError(f"expected a Dataset or a DataTree, got {type(result).__name__}.")
    try:
        with whole_file(Path(path)) as temporary:
            _aside(partial(_write, result, temporary))
            content = temporary.read_bytes()
            with temporary.open("ab") as file:
                file.write(seal(content))
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        message = f"{os.fspath(path)!r} cannot be written: {error.strerror}. Is the disk full?"
        raise OSError(error.errno, message) from error


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Write a file that appears under its name only when it is complete.

    What killed processes have left of the same file is removed. A link's target is replaced, not the link, and a pipe
    or a device is written to.

    Args:
        path: The file; an existing one is replaced.

    Yields:
        Another path to write to, in the same folder.

    Raises:
        FileNotFoundError: If the folder does not exist.
        IsADirectoryError: If the path is a folder.
    """
    if path.is_dir():
        raise IsADirectoryError(f"expected a file to write, got the folder {str(path)!r}.")
    if path.exists() and not path.is_file():
        with tempfile.TemporaryDirectory() as folder:
            temporary = Path(folder) / "content"
            yield temporary
            with temporary.open("rb") as content, path.open("wb") as pipe:
                shutil.copyfileobj(content, pipe)
        return
    path = Path(os.path.realpath(path))
    if not path.parent.is_dir():
        raise FileNotFoundError(f"the folder {str(path.parent)!r} does not exist; create it first.")
    _remove_left_over(path)
    temporary = path.with_name(f".{path.name}.{_host()}-{os.getpid()}.{secrets.token_hex(4)}.part")
    _being_written.add(temporary.name)
    try:
        temporary.touch(exist_ok=False)
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())  # or a power cut could leave an empty file under the new name
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            os.truncate(temporary, 0)  # netCDF keeps a file open that it could not finish, and so the space taken
        temporary.unlink(missing_ok=True)
        raise
    finally:
        _being_written.discard(temporary.name)


def _remove_left_over(path: Path) -> None:
    """Remove what processes that were killed have left of a file that they were writing."""
    pattern = re.compile(re.escape(f".{path.name}.") + r"(?:([0-9a-f]{8})-([0-9]+)\.)?[a-z0-9_]{8}\.part")
    for file in path.parent.iterdir():
        if match := pattern.fullmatch(file.name):
            with suppress(OSError):  # somebody else's, or just gone
                if not _may_live(file, *match.groups()):
                    file.unlink()


def _may_live(file: Path, host: str | None, process: str | None) -> bool:
    """Tell whether the process that was writing a file may still be; on another machine, if it was within a day."""
    if host != _host() or process is None or os.name == "nt":
        return time.time() - file.stat().st_mtime < _DAY
    if int(process) == os.getpid():
        return file.name in _being_written  # in a container, process numbers come back soon
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    return True


def open(path: str | os.PathLike[str]) -> xr.Dataset | xr.DataTree:
    """Read a result back from a netCDF-4 file, whole, leaving the file closed.

    Args:
        path: A file that :func:`save` wrote.

    Returns:
        The Dataset, or the DataTree if the file has groups.

    Raises:
        FileNotFoundError: If there is no such file.
        IsADirectoryError: If it is a folder.
        ValueError: If the file is not netCDF, truncated or damaged, holds counts that cannot be, refers to other
            files, or declares variables too large for its size.

    Example:
        >>> import tempfile, resnet_lesion as rl
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     rl.save(rl.path_counts(3).to_dataset(name="path_count"), f"{folder}/counts.nc")
        ...     rl.open(f"{folder}/counts.nc").path_count.values.tolist()
        [1.0, 3.0, 3.0, 1.0]
    """
    if Path(path).is_dir():
        raise IsADirectoryError(f"expected a netCDF file, got the folder {os.fspath(path)!r}.")
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no file {os.fspath(path)!r}.")
    try:
        return _aside(partial(_read, Path(path).read_bytes()))
    except ValueError as error:
        found = f"expected a netCDF file, got {os.fspath(path)!r}: {error}. Write it again."
        raise ValueError(found) from error.__cause__


def _write(result: xr.Dataset | xr.DataTree, path: Path) -> None:
    encoding: Any
    if isinstance(result, xr.Dataset):
        encoding = _packed(result)
    else:
        encoding = {node.path: _packed(node.to_dataset(inherit=False)) for node in result.subtree}
    try:
        result.to_netcdf(path, engine="netcdf4", format="NETCDF4", encoding=encoding)
    except RuntimeError as error:
        if "HDF error" in str(error):  # what netCDF raises on a full disk
            raise OSError(errno.ENOSPC, str(error)) from error
        raise ValueError(f"the result cannot be written as netCDF: {error}.") from error


def _read(content: bytes) -> xr.Dataset | xr.DataTree:
    refuse_unfit(content)
    try:
        # from memory: what was inspected is what is read
        with netCDF4.Dataset("result.nc", memory=content) as file:
            refuse_inflated(file, len(content))
            result = _tree(file) if file.groups else _dataset(file, "/")
    except MemoryError:
        raise
    except Exception as error:  # whatever bytes that are no result make the libraries raise
        cause = getattr(error, "strerror", None) or str(error)
        raise ValueError(f"it is cut off, damaged or of another kind: {cause}") from error
    for _, dataset in groups(result):
        refuse_impossible(dataset)
    return result


def _tree(file: netCDF4.Dataset) -> xr.DataTree:
    return xr.DataTree.from_dict({path: _dataset(file, path) for path in _paths(file)})


def _dataset(file: netCDF4.Dataset, path: str) -> xr.Dataset:
    store: Any = NetCDF4DataStore(file, group=path)  # type: ignore[no-untyped-call]
    return xr.open_dataset(store).load().drop_encoding()


def _paths(group: netCDF4.Dataset) -> Iterator[str]:
    yield group.path
    for child in group.groups.values():
        yield from _paths(child)


def _packed(dataset: xr.Dataset) -> dict[str, dict[str, Any]]:
    """Compress what is not text, and let netCDF keep checksums of it."""
    packing = {"zlib": True, "complevel": 4, "fletcher32": True}
    return {
        str(name): packing for name, array in dataset.variables.items() if array.dtype.kind in "biuf" and array.ndim
    }


def _aside(work: Callable[[], _T]) -> _T:
    """Do it in another thread, and wait for it.

    Python calls the handlers of signals in the main thread, anywhere. There Ctrl-C, or torch's handler when a loader's
    process has died, would raise between the taking of xarray's global lock for netCDF and its release, and whoever
    wants it next would wait for ever. Here they raise once what has been begun is done.
    """
    outcome: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()

    def do() -> None:
        try:
            with _one_at_a_time:
                outcome.put((work(), None))
        except BaseException as error:
            outcome.put((None, error))

    thread = Thread(target=do, daemon=True)  # a second Ctrl-C does not wait
    thread.start()
    try:
        result, error = outcome.get()
    except BaseException:
        thread.join()
        raise
    if error is not None:
        raise error
    return cast("_T", result)


def _host() -> str:
    """Return a short name of what process numbers are counted in: this machine, or a container on it."""
    try:
        numbers = os.readlink("/proc/self/ns/pid")
    except OSError:  # not on Linux
        numbers = ""
    return f"{zlib.crc32(f'{socket.gethostname()} {numbers}'.encode()):08x}"
