"""Results to netCDF and back, with nothing lost."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import netCDF4
import xarray as xr


def save(result: xr.Dataset | xr.DataTree, path: str | os.PathLike[str]) -> None:
    """Write a result to a netCDF-4 file.

    The file appears under its name only when it is complete; an existing file is replaced.

    Args:
        result: What an analyzer or :func:`study` returned.
        path: Where to; the folder must exist.

    Raises:
        TypeError: If the result is something else.
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
    encoding: Any
    if isinstance(result, xr.Dataset):
        encoding = _compressed(result)
    else:
        encoding = {node.path: _compressed(node.to_dataset(inherit=False)) for node in result.subtree}
    with whole_file(Path(path)) as temporary:
        try:
            result.to_netcdf(temporary, engine="netcdf4", format="NETCDF4", encoding=encoding)
        except RuntimeError as error:  # what netCDF raises on a full disk
            raise OSError(f"{os.fspath(path)!r} cannot be written: {error}. Is the disk full?") from error


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Write a file that appears under its name only when it is complete.

    Args:
        path: The file; an existing one is replaced.

    Yields:
        Another path in the same folder, to write to.

    Raises:
        FileNotFoundError: If the folder does not exist.
    """
    if not path.parent.is_dir():
        raise FileNotFoundError(f"the folder {str(path.parent)!r} does not exist; create it first.")
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())  # mkstemp makes files that nobody else can read
        with temporary.open("rb") as file:
            os.fsync(file.fileno())  # or a power cut could leave an empty file under the new name
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def open(path: str | os.PathLike[str]) -> xr.Dataset | xr.DataTree:
    """Read a result back from a netCDF-4 file, whole, leaving the file closed.

    Args:
        path: A file that :func:`save` wrote.

    Returns:
        The Dataset, or the DataTree if the file has groups.

    Raises:
        FileNotFoundError: If there is no such file.
        IsADirectoryError: If it is a folder.
        ValueError: If the file is not netCDF, or truncated.

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
        with netCDF4.Dataset(path) as file:
            has_groups = bool(file.groups)
        if has_groups:
            with xr.open_datatree(path, engine="netcdf4") as tree:
                return tree.load().map_over_datasets(xr.Dataset.drop_encoding)
        with xr.open_dataset(path, engine="netcdf4") as dataset:
            return dataset.load().drop_encoding()
    except (OSError, RuntimeError) as error:
        cause = getattr(error, "strerror", None) or str(error)
        raise ValueError(
            f"expected a netCDF file, got {os.fspath(path)!r}, which is none or was cut off: {cause}. Write it again."
        ) from error


def _compressed(dataset: xr.Dataset) -> dict[str, dict[str, Any]]:
    numeric = {name: array for name, array in dataset.data_vars.items() if array.dtype.kind in "biuf" and array.ndim}
    return {str(name): {"zlib": True, "complevel": 4} for name in numeric}


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
