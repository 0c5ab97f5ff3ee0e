"""The layers of the package, read from its imports: checked by the tests, drawn and counted for the documentation."""

from __future__ import annotations

import ast
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from resnet_lesion.plots.drawing import BLUE, GREY

PACKAGE = Path(__file__).parents[2] / "resnet_lesion"

LAYERS = (
    *("cli", "__init__", "paper", "reports", "plots", "loading", "training", "analyzers", "testing", "acceleration"),
    *("runs", "engines", "results", "network", "blocks", "digits", "checks", "warning", "text", "errors"),
)
"""The package's folders, and the files beside them, from the highest down: each imports from itself and from below."""

CELL = 0.215  # as wide as a column of the picture, in inches

Imports = dict[str, dict[str, set[str]]]
"""For each file, the files it imports and the names it takes from each: none if it imports the file as a whole."""


def imports(package: Path = PACKAGE) -> Imports:
    """Read what the package's files import from one another, wherever in them: in a function, for types, or in a stub.

    Args:
        package: The package's folder.

    Returns:
        What each file imports. A file's name is its path with dots: ``blocks.branch``, ``blocks.__init__``, ``checks``.
    """
    # a stub says what its file imports when it is asked for it
    paths = [*sorted(package.rglob("*.py")), *sorted(package.rglob("*.pyi"))]
    names = [".".join(path.relative_to(package).with_suffix("").parts) for path in paths]
    found: Imports = {name: {} for name in names}
    for name, path in zip(names, paths, strict=True):
        for module, taken in _imported(ast.parse(path.read_text()), [package.name, *name.split(".")]):
            if module[0] != package.name:
                continue
            inside = [".".join(module[1:]), ".".join([*module[1:], "__init__"])]
            within = [f"{inside[0]}.{taken}".lstrip("."), f"{inside[0]}.{taken}.__init__".lstrip(".")] if taken else []
            # what is taken may be a file itself
            whole = next((file for file in within if file in found), None)
            target = whole or next(file for file in inside if file in found)
            found[name].setdefault(target, set()).update([taken] if taken and not whole else [])
    return found


def _imported(tree: ast.Module, here: list[str]) -> Iterator[tuple[list[str], str | None]]:
    """Yield the modules that a file imports, and the name that it takes from each, if not the module whole."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name.split("."), None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = here[: len(here) - node.level] if node.level else []
            module = start + (node.module.split(".") if node.module else [])
            yield from ((module, alias.name) for alias in node.names)


def layer_of(file: str) -> str:
    """Return the layer of a file: its folder, or the file itself where it stands beside the folders."""
    return file.partition(".")[0]


def between_layers(files: Imports) -> dict[str, Counter[str]]:
    """Count, for each layer, how many times its files import a file of each layer, their own among them."""
    counted: dict[str, Counter[str]] = {layer_of(file): Counter() for file in files}
    for file, others in files.items():
        counted[layer_of(file)].update(map(layer_of, others))
    return counted


def upward(files: Imports, layers: tuple[str, ...] = LAYERS) -> list[str]:
    """Find the imports that run from a layer to one above it."""
    found = [(file, other) for file, others in files.items() for other in others]
    return [f"{a} imports {b}" for a, b in found if layers.index(layer_of(b)) < layers.index(layer_of(a))]


def circle(graph: Mapping[str, Iterable[str]]) -> list[str]:
    """Return the names along a circle of imports, or an empty list; what a name imports of itself does not count."""
    try:
        TopologicalSorter({name: set(others) - {name} for name, others in graph.items()}).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def right_below(between: Mapping[str, Iterable[str]]) -> dict[str, list[str]]:
    """Return the layers right below each: those that it imports and does not also reach through another."""
    others = {name: set(imported) - {name} for name, imported in between.items()}
    reached: dict[str, set[str]] = {}
    for name in TopologicalSorter(others).static_order():  # the lowest first
        reached[name] = others[name].union(*(reached[other] for other in others[name]))
    return {
        name: sorted(imported.difference(*(reached[other] for other in imported)), key=LAYERS.index)
        for name, imported in others.items()
    }


def about(layer: str) -> str:
    """Return the one line that says what a layer is: how the docstring of the folder, or of the file, begins."""
    source = PACKAGE / layer / "__init__.py" if (PACKAGE / layer).is_dir() else _source(layer)
    return str(ast.get_docstring(ast.parse(source.read_text()))).partition("\n")[0].partition(" Below:")[0]


def counts() -> str:
    """Say how many files, lines and imports there are, and which way the imports run."""
    files = imports()
    lines = sum(len(_source(file).read_text().splitlines()) for file in files)
    pairs = [(layer_of(file), layer_of(other)) for file, others in files.items() for other in others]
    inside, up = sum(a == b for a, b in pairs), len(upward(files))
    found = " → ".join(circle(files))
    return (
        f"{len(files)} files, {lines:,} lines, in {len(LAYERS)} layers. They import one another {len(pairs)} times: "
        f"{inside} times within a layer, {len(pairs) - inside - up} times a layer below, {up} times a layer above. "
        f"{f'A circle: {found}.' if found else 'There is no circle.'}"
    )


def picture() -> Axes:
    """Draw the layers from the highest down, and beside them how many times each imports which.

    The columns are the layers in the order of the rows, so that an import of a lower layer stands right of the diagonal
    and an import upwards would stand left of it. The layers right below are dark.
    """
    files = imports()
    between = between_layers(files)
    below = right_below(between)
    n, left = len(LAYERS), 5.1
    _, ax = plt.subplots(figsize=(9, 9), layout="constrained")
    for row, layer in enumerate(LAYERS):
        _describe(ax, row, layer, [file for file in files if layer_of(file) == layer])
        for column, other in enumerate(LAYERS):
            times, x = between[layer][other], left + CELL * column
            if row == column:
                _cell(ax, x, row, times, "#e8e8e8", GREY)
            elif times:
                near = other in below[layer]
                _cell(ax, x, row, times, BLUE if near else "#cfe3f0", "white" if near else "black")
        ax.text(left + CELL * (row + 0.5), -0.15, _title(layer), rotation=90, va="bottom", ha="center", fontsize=8)
        ax.plot([0, left + CELL * n], [row, row], color=GREY, linewidth=0.4, zorder=0)
    ax.set_xlim(0, left + CELL * n)
    ax.set_ylim(n, -1.9)
    ax.axis("off")
    return ax


def _describe(ax: Axes, row: int, layer: str, files: list[str]) -> None:
    names = [file.partition(".")[2] for file in files if not file.endswith("__init__")]
    lines = sum(len(_source(file).read_text().splitlines()) for file in files)
    ax.text(0, row + 0.12, _title(layer), weight="bold", color=BLUE, va="top", fontsize=9)
    size = f"{len(names)} files, {lines:,} lines" if len(files) > 1 else f"{lines:,} lines"
    ax.text(0, row + 0.52, size, color=GREY, va="top", fontsize=6.5)
    text = textwrap.wrap(about(layer).replace("``", ""), 74)
    ax.text(1.15, row + 0.12, "\n".join(text), va="top", fontsize=7.5)
    below = row + 0.12 + 0.28 * len(text)
    listed = "\n".join(textwrap.wrap(", ".join(names), 84)) if len(files) > 1 else ""
    ax.text(1.15, below, listed, va="top", fontsize=6.2, family="monospace", color=GREY)


def _cell(ax: Axes, x: float, row: int, times: int, colour: str, ink: str) -> None:
    ax.add_patch(Rectangle((x, row), CELL, 1, facecolor=colour, edgecolor="white"))
    ax.text(x + CELL / 2, row + 0.5, str(times or ""), ha="center", va="center", fontsize=7.5, color=ink)


def _title(layer: str) -> str:
    return f"{layer}/" if (PACKAGE / layer).is_dir() else f"{layer}.py"


def _source(file: str) -> Path:
    return PACKAGE.joinpath(*file.split(".")).with_suffix(".py")
