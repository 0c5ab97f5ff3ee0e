"""The pictures of the explanation: a residual network as drawn usually, and as the paths that it holds."""

from __future__ import annotations

from itertools import product

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from resnet_lesion.plots.drawing import BLUE, GREY, VERMILLION

N_BLOCKS = 3


def network(deleted: int | None = None) -> Axes:
    """Draw blocks in a row, each with its skip above its branch; a deleted one has no branch."""
    ax = _axes(2.2)
    for i in range(N_BLOCKS):
        left, right = 2.4 * i, 2.4 * (i + 1)
        ax.annotate("", (right - 0.2, 0), (left + 0.2, 0), arrowprops=_arrow(BLUE, 0.6))
        colour = GREY if i == deleted else VERMILLION
        if i != deleted:
            ax.plot([left + 0.2, left + 0.7], [0, 0], color=colour)
            ax.plot([left + 1.7, right - 0.2], [0, 0], color=colour)
        _box(ax, left + 1.2, 0, f"$f_{i + 1}$", colour, dashed=i == deleted, height=0.25)
    for i in range(N_BLOCKS + 1):
        ax.plot(2.4 * i, 0, "o", color="black", markersize=22, markerfacecolor="white", zorder=3)
        ax.text(2.4 * i, 0, f"$y_{i}$", ha="center", va="center", zorder=4)
    ax.set_ylim(-0.7, 1.1)
    return ax


def unraveled(deleted: int | None = None) -> Axes:
    """Draw every path as a row of its own; those that a deletion breaks are grey."""
    ax = _axes(4.2)
    paths = sorted(product((0, 1), repeat=N_BLOCKS), key=lambda path: (sum(path), path))
    for row, path in enumerate(paths):
        y, broken = -row, deleted is not None and path[deleted] == 1
        colour = GREY if broken else BLUE
        ax.plot([-0.6, 2.4 * N_BLOCKS - 1.2], [y, y], color=colour, linestyle=":" if broken else "-")
        for i, taken in enumerate(path):
            if taken:
                _box(ax, 2.4 * i + 0.6, y, f"$f_{i + 1}$", GREY if broken else VERMILLION, i == deleted, 0.35)
        label = f"length {sum(path)}" + (", gone" if broken else "")
        ax.text(2.4 * N_BLOCKS - 1.0, y, label, va="center", color=GREY if broken else "black")
    ax.text(-0.8, -3.5, "input", ha="right", va="center")
    ax.set_ylim(-len(paths) + 0.4, 0.6)
    ax.set_xlim(-1.8, 2.4 * N_BLOCKS + 0.6)
    return ax


def _axes(height: float) -> Axes:
    _, ax = plt.subplots(figsize=(8, height), layout="constrained")
    ax.axis("off")
    return ax


def _arrow(colour: str, bend: float) -> dict[str, object]:
    return {"arrowstyle": "->", "color": colour, "linewidth": 1.5, "connectionstyle": f"arc3,rad=-{bend}"}


def _box(ax: Axes, x: float, y: float, text: str, colour: str, dashed: bool = False, height: float = 0.45) -> None:
    rectangle = plt.Rectangle(
        (x - 0.5, y - height),
        1,
        2 * height,
        facecolor="white",
        edgecolor=colour,
        zorder=3,
        linestyle="--" if dashed else "-",
    )
    ax.add_patch(rectangle)
    ax.text(x, y, text, ha="center", va="center", color=colour, zorder=4)
