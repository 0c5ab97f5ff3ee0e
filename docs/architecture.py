"""The layers of the package; a file may import from its own layer and from those below, never from above."""

from __future__ import annotations

import ast
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

import resnet_lesion
from resnet_lesion.plots.drawing import BLUE, GREY, VERMILLION

PACKAGE = Path(resnet_lesion.__file__).parent

LAYERS = (
    "cli", "paper", "reports", "plots", "loading", "training", "analyzers", "testing", "acceleration", "runs", "engines",
    "results", "network", "blocks", "digits", "checks", "errors", "lazy",
)  # fmt: skip
"""The package's folders, and the files beside them, from the highest down: each imports from itself and from below."""


def imports(package: Path = PACKAGE) -> dict[str, set[str]]:
    """Return which folders (or files beside them) of the package each of them imports, wherever in it."""
    found: dict[str, set[str]] = {}
    for path in sorted(package.rglob("*.py")):
        name = path.relative_to(package).parts[0].removesuffix(".py")
        if name == "__init__":
            continue
        found.setdefault(name, set())
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module == package.name:
                found[name] |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and str(node.module).startswith(f"{package.name}."):
                found[name].add(str(node.module).split(".")[1])
    return found


def picture() -> Axes:
    """Draw the layers with their files, and the adapters beside them."""
    _, ax = plt.subplots(figsize=(8, 7), layout="constrained")
    ax.axis("off")
    for i, (name, (about, files)) in enumerate(LAYERS.items()):
        y = -1.35 * i
        ax.add_patch(plt.Rectangle((0, y), 10, 1.1, facecolor="white", edgecolor=BLUE))
        ax.text(0.15, y + 0.84, name, weight="bold", color=BLUE, va="center")
        ax.text(2.2, y + 0.84, about, color=GREY, va="center")
        half = (len(files) + 1) // 2 if sum(map(len, files)) > 50 else len(files)
        text = "\n".join(",  ".join(some) for some in (files[:half], files[half:]) if some)
        ax.text(0.15, y + 0.34, text, va="center", fontsize="small", family="monospace")
        if i:
            ax.annotate("", (5, y + 1.1), (5, y + 1.35), arrowprops={"arrowstyle": "->", "color": GREY})
    bottom = -1.35 * (len(LAYERS) - 1)
    ax.add_patch(plt.Rectangle((10.6, bottom), 3, 1.1, facecolor="white", edgecolor=VERMILLION))
    ax.text(10.75, bottom + 0.84, "adapters", weight="bold", color=VERMILLION, va="center")
    ax.text(10.75, bottom + 0.34, "resnet_lesion_timm:\nwhat knows timm's blocks", fontsize="small", va="center")
    ax.annotate("", (10, bottom + 0.55), (10.6, bottom + 0.55), arrowprops={"arrowstyle": "->", "color": GREY})
    ax.set_xlim(-0.1, 13.8)
    ax.set_ylim(bottom - 0.1, 1.3)
    return ax
