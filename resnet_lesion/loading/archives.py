"""The files of a folder, a zip file or a tar archive, read by name in any process; nothing is unpacked to disk."""

from __future__ import annotations

import lzma
import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn, Protocol


class Container(Protocol):
    """Files by name, in any process."""

    @property
    def names(self) -> tuple[str, ...]:
        """The files' names, each once, with ``/`` between folders."""
        ...

    def read(self, name: str) -> bytes:
        """Return what is in a file."""
        ...


def container(path: Path, wanted: Callable[[str], bool]) -> Container | None:
    """Look into a folder or an archive.

    Args:
        path: The folder, zip file, or tar archive, which may be compressed.
        wanted: Tells by its name whether a file is of interest.

    Returns:
        Those files, or None if there is no such folder or archive.

    Raises:
        OSError: If a folder cannot be read, or leads back to itself.
        ValueError: If the archive is damaged.
    """
    if path.is_dir():
        return _Folder(path, wanted)
    if not path.is_file():
        return None
    try:
        kind = next((kind for is_kind, kind in _ARCHIVES if is_kind(path)), None)
        return None if kind is None else kind(path, wanted)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        raise ValueError(f"the archive {str(path)!r} cannot be read to its end: {error}. Is it all there?") from error


class _Folder:
    def __init__(self, path: Path, wanted: Callable[[str], bool]) -> None:
        self._path = path
        names: list[str] = []
        for folder, subfolders, files in os.walk(path, followlinks=True, onerror=_refuse):
            subfolders[:] = [name for name in subfolders if not is_hidden(name)]
            for name in subfolders:
                _refuse_loop(Path(folder, name))
            below = Path(folder).relative_to(path).parts
            names += ["/".join((*below, file)) for file in files]
        self.names = tuple(filter(wanted, names))

    def read(self, name: str) -> bytes:
        return (self._path / name).read_bytes()


class _Zip:
    def __init__(self, path: Path, wanted: Callable[[str], bool]) -> None:
        self._path = path
        self._archive: zipfile.ZipFile | None = None
        self._opened_by = 0
        with zipfile.ZipFile(path) as archive:
            members = [name for name in archive.namelist() if not name.endswith("/")]
        # a name that is there twice is the later file, as for whoever unpacks it; old .NET wrote backslashes
        written = {_tidied(name if "/" in name else name.replace("\\", "/")): name for name in members}
        self._members = {name: member for name, member in written.items() if wanted(name)}

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._members)

    def read(self, name: str) -> bytes:
        if self._archive is None or self._opened_by != os.getpid():
            # each process opens its own: forked ones would share the position in the file
            self._archive, self._opened_by = zipfile.ZipFile(self._path), os.getpid()
        return self._archive.read(self._members[name])

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_archive": None}


class _Tar:
    """A tar archive: where each file begins, or what is in it where it cannot be found that way.

    A compressed archive can only be read from its beginning, so what is wanted of it is held in memory.
    """

    def __init__(self, path: Path, wanted: Callable[[str], bool]) -> None:
        self._path = path
        self._members: dict[str, tuple[int, int] | bytes] = {}
        try:
            archive, is_compressed = tarfile.open(path, "r:"), False  # noqa: SIM115
        except tarfile.ReadError:
            archive, is_compressed = tarfile.open(path, "r:*"), True  # noqa: SIM115
        with archive:
            for member in archive:
                name = _tidied(member.name)
                if member.isdir() or not wanted(name):
                    continue
                if member.isreg() and not member.issparse() and not is_compressed:
                    self._members[name] = member.offset_data, member.size
                    continue
                try:
                    file = archive.extractfile(member)  # a link's is that of the file it leads to
                except KeyError as error:
                    raise tarfile.ReadError(f"{member.name} is a link to a file that is not there") from error
                if file is not None:
                    self._members[name] = file.read()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._members)

    def read(self, name: str) -> bytes:
        at = self._members[name]
        if isinstance(at, bytes):
            return at
        offset, size = at
        with self._path.open("rb") as file:  # each time: processes would share the position in the file
            file.seek(offset)
            return file.read(size)


# tar first: the end of one that holds a zip file may be taken for a zip file's
_ARCHIVES: tuple[tuple[Callable[[Path], bool], type[_Tar] | type[_Zip]], ...] = (
    (tarfile.is_tarfile, _Tar),
    (zipfile.is_zipfile, _Zip),
)


_JUNK = ("__MACOSX", "@eaDir", "$RECYCLE.BIN")  # what macOS, Synology's disks and Windows put beside one's files


def is_hidden(name: str) -> bool:
    """Tell whether a file or folder is not meant to be seen, such as ``.DS_Store`` or ``__MACOSX``."""
    return name.startswith(".") or name in _JUNK


def _tidied(name: str) -> str:
    """Return a name in an archive as relative to it, without a leading ``./`` or ``/``."""
    return str(PurePosixPath(name.lstrip("/")))


def _refuse_loop(folder: Path) -> None:
    """Refuse a link to a folder that it is in: each image would be there forty times, as deep as links may be."""
    if folder.is_symlink() and folder.resolve() in {above.resolve() for above in folder.parents}:
        raise OSError(f"the folder {str(folder)!r} leads back to one that it is in, without end. Take the link away.")


def _refuse(error: OSError) -> NoReturn:
    """Do not leave out a folder that cannot be read, as os.walk would."""
    raise error
