"""Which label a class has: its place among the folders' names, in a class map, or among the model's outputs."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from pathlib import Path

_NO_LISTS = (".csv", ".json", ".npy", ".pickle", ".pkl", ".tsv")


_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def labels_of(
    folders: Sequence[str], *, class_map: Path | None = None, classes: str | Path | None = None
) -> dict[str, int]:
    """Number the classes of images in folders.

    Args:
        folders: The names of the folders that hold images, in any order.
        class_map: A file with names of folders, one a line: a folder's label is its line, and folders that have none
            are left out.
        classes: A file with the names of all the model's outputs, one a line, or the name of a list that timm has, such
            as ``imagenet-1k``: a folder's label is the output of its name.

    Returns:
        The label of each name, in the order of the labels: of the folders as timm sorts them, ``2`` before ``10``, or
        of all lines of the file, whether or not there is such a folder.

    Raises:
        FileNotFoundError: If there is no such file or list.
        ValueError: If both are given, a file is not a list of names, ``class_map`` has names without a folder while
            some folders have no line, or a folder is not among ``classes``.
    """
    from timm.utils.misc import natural_key

    if class_map is not None and classes is not None:
        raise ValueError("expected class_map= or classes=, got both: each says which folder has which label.")
    if classes is not None:
        names = output_names(classes)
        unknown = sorted(set(folders) - set(names))
        if unknown:
            raise ValueError(
                f"expected each subfolder to have the name of one of the {len(names)} outputs in classes="
                f"{str(classes)!r}, got {unknown[0]!r}{_and_more(unknown)}. Rename it, or take it away."
            )
    elif class_map is not None:
        names = read_names(class_map, "class_map")
        _refuse_misspelt(class_map, names, folders)
    else:
        # names that are equal to timm, such as "Cat" and "cat", in an order that does not depend on the process
        names = sorted(set(folders), key=lambda name: (natural_key(name), name))
    return {name: label for label, name in enumerate(names)}


def output_names(classes: str | Path) -> list[str]:
    """Return the names of a model's outputs: of a file, one a line, or of timm's list of this name.

    Raises:
        FileNotFoundError: If there is neither.
        ValueError: If the file is not a list of names.
    """
    from timm.data import ImageNetInfo

    if Path(classes).exists():
        return read_names(Path(classes), "classes")
    try:
        return list(ImageNetInfo(str(classes)).label_names())
    except AssertionError as error:
        raise FileNotFoundError(
            f"expected classes= as a file with the names of the model's outputs, one a line, or as a list that timm "
            f"has, such as 'imagenet-1k', got {str(classes)!r}, which is neither."
        ) from error


def read_names(path: Path, parameter: str) -> list[str]:
    """Read a text file with one name a line. Nothing in it is run, whatever it is.

    Args:
        path: The file, in UTF-8, or in UTF-16 with its byte order mark; with line ends of any system.
        parameter: What it was given as, to be named in errors.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not such a text, or a line is blank or there twice.
    """
    given = f"{parameter}={str(path)!r}"
    fix = f"expected {parameter}= as a text file with one name a line"
    if not path.is_file():
        raise FileNotFoundError(f"{fix}, got {str(path)!r}, which is no file.")
    if path.suffix.lower() in _NO_LISTS:
        raise ValueError(f"{fix}, got {str(path)!r}. Write the names alone into a .txt file.")
    content = path.read_bytes()
    encoding = "utf-16" if content.startswith(_UTF_16) else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(f"{fix}, in UTF-8, got {str(path)!r}, which is not text: {error}.") from error
    if "\0" in text:
        raise ValueError(f"{fix}, in UTF-8, got {str(path)!r}, which has zero bytes.")
    # of str.splitlines' line ends, only these end a line of a text file
    names = [line.strip() for line in text.replace("\r\n", "\n").replace("\r", "\n").rstrip().split("\n")]
    lines: dict[str, int] = {}
    for line, name in enumerate(names, start=1):
        if not name:
            raise ValueError(f"{fix}, got {given} whose line {line} is blank. Delete it, if no output is meant.")
        if name in lines:
            raise ValueError(f"{fix}, got {name!r} in the lines {lines[name]} and {line} of {given}. Delete one.")
        lines[name] = line
    return names


def _refuse_misspelt(class_map: Path, names: Sequence[str], folders: Sequence[str]) -> None:
    """Refuse a class map that has names without a folder while some folders have no line: probably a misspelling.

    A map of some of the folders selects those, and one with more classes than there are images of is valid too.
    """
    unknown = sorted(set(folders) - set(names))
    wrong = sorted(set(names) - set(folders))
    if unknown and wrong:
        raise ValueError(
            f"expected names of subfolders in class_map={str(class_map)!r}, got {wrong[0]!r}, which is not one, and no "
            f"line for {unknown[0]!r}."
        )


def _and_more(names: Sequence[str]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""
