"""The figure: all cases of one device on a page, drawn from the results.

``python benchmarks/figure.py`` draws those of ``results/`` again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from gradients import LOOP, PLAIN
from lesions import ACCELERATED, FEATURES, HOOKS, LAYERS, REPLACED
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from report import FOLDER, Entry, read
from timing import OURS
from training import ALL

from resnet_lesion.drawing import BLUE, GREEN, GREY, VERMILLION

# colour and marker of each contender
LOOK = {
    OURS: (BLUE, "o"),
    ACCELERATED: ("#56B4E9", "P"),
    HOOKS: (VERMILLION, "s"),
    REPLACED: (GREEN, "D"),
    LAYERS: ("#CC79A7", "^"),
    FEATURES: ("#E69F00", "v"),
    LOOP: ("black", "X"),
}
COMPARISONS = ("single-deletion", "random-deletions", "reorderings", "sampled-paths")


def write(folder: Path, device: str) -> Path | None:
    """Draw one device's results to ``benchmarks-DEVICE.png`` in their folder; None if there are none."""
    cases = read(folder, device)
    if not cases:
        return None
    figure = Figure((15, 15), layout="constrained")
    grid = figure.add_gridspec(4, 3, width_ratios=[1.25, 1, 1])
    panels: list[tuple[Any, Callable[[Axes, dict[str, Entry]], None]]] = [
        (grid[:, 0], comparisons),
        (grid[0, 1], exact_paths),
        (grid[0, 2], training),
        (grid[1, 1], overhead),
        (grid[1, 2], throughput),
        (grid[2, 1], scaling_blocks),
        (grid[2, 2], scaling_lesions),
        (grid[3, 1], scaling_images),
    ]
    for place, draw in panels:
        axes = figure.add_subplot(place)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(True, color="0.9")
        axes.set_axisbelow(True)
        draw(axes, cases)
        if not axes.has_data():
            axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", color=GREY)
    legend = figure.add_subplot(grid[3, 2])
    legend.axis("off")
    for name, (colour, marker) in LOOK.items():
        legend.plot([], [], color=colour, marker=marker, label=name)
    legend.legend(loc="center left", frameon=False)
    machine = next(iter(cases.values()))["machine"]
    where = machine["processor"] if device == "cpu" else machine["device"]
    figure.suptitle(f"resnet-lesion beside what a user would write instead: {where}, {machine['threads']} threads")
    path = folder / f"benchmarks-{device}.png"
    figure.savefig(path, dpi=100)
    return path


def comparisons(axes: Axes, cases: dict[str, Entry]) -> None:
    """For each case and network, how many times as long each alternative takes."""
    labels = []
    for case in COMPARISONS:
        for entry in measured(cases, case):
            y = len(labels)
            for name, contender in entry["contenders"].items():
                colour, marker = LOOK[name]
                axes.plot(contender["times_as_long"], y, marker, color=colour, markersize=8)
            labels.append(f"{case.replace('-', ' ')}\n{entry['model']}")
    axes.axvline(1, color=BLUE, linewidth=1)
    axes.set_xscale("log")
    ticks = [0.5, 1, 2, 3, 5, 10, 20]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks], minor=False)
    axes.set_xticks([], minor=True)
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    titled(axes, "Times as long as resnet-lesion", "time for one lesion or path / that of resnet-lesion")


def exact_paths(axes: Axes, cases: dict[str, Entry]) -> None:
    """The cost of all path lengths in plain passes, beside their number."""
    entries = measured(cases, "exact-paths")
    bars(axes, entries, [entry["contenders"][OURS]["times_as_long"] for entry in entries], "{:.0f}")
    for y, entry in enumerate(entries):
        axes.plot(entry["path_lengths"], y, "|", color="black", markersize=16, label=None if y else "path lengths")
    if entries:
        axes.legend(frameon=False, fontsize="small")
    titled(axes, "Exact gradients of all path lengths", f"time / that of one of the {PLAIN}")


def training(axes: Axes, cases: dict[str, Entry]) -> None:
    """The time of a mini-batch by the number of blocks in it."""
    for entry in measured(cases, "training"):
        contenders, blocks = entry["contenders"], entry["blocks_in_a_batch"]
        some = sorted((blocks[name], contenders[name]["seconds_for_one"]) for name in contenders if name != ALL)
        axes.plot(*zip(*some, strict=True), "o-", color=BLUE)
        axes.plot(blocks[ALL], contenders[ALL]["seconds_for_one"], "s", color=VERMILLION, label="plain training")
        axes.set_ylim(0)
        axes.legend(frameon=False, fontsize="small", loc="lower right")
    titled(axes, "Training some random blocks", "blocks in a mini-batch", "seconds for a mini-batch")


def overhead(axes: Axes, cases: dict[str, Entry]) -> None:
    """What the engine adds to the bare block computations."""
    entries = [*measured(cases, "engine-single"), *measured(cases, "engine-deletions")]
    bars(axes, entries, [100 * entry["overhead"] for entry in entries], "{:.1f}")
    axes.axvline(10, color="black", linestyle="--", linewidth=1)
    titled(axes, "Engine overhead", "% of the bare block computations; dashed: the most it may be")


def throughput(axes: Axes, cases: dict[str, Entry]) -> None:
    """The engine's floating-point operations per second beside those of the model's own forward pass."""
    entries = [*measured(cases, "engine-single"), *measured(cases, "engine-deletions")]
    bars(axes, entries, [100 * entry["share_of_plain_throughput"] for entry in entries], "{:.0f}")
    axes.axvline(100, color="black", linestyle="--", linewidth=1)
    titled(axes, "Engine throughput", "% of the plain forward pass at its fastest batch size")


def scaling_blocks(axes: Axes, cases: dict[str, Entry]) -> None:
    """The time of a whole study by the depth of the network."""
    lines(axes, measured(cases, "scaling-blocks"), "n_blocks", lambda entry: entry["lesions"])
    titled(axes, "Single deletion, deeper networks", "blocks", "seconds for all blocks")


def scaling_lesions(axes: Axes, cases: dict[str, Entry]) -> None:
    """The time of one lesion by the number of lesions."""
    lines(axes, measured(cases, "scaling-lesions"), "lesions", lambda _: 1)
    titled(axes, "More random deletions", "lesions", "seconds for one lesion")


def scaling_images(axes: Axes, cases: dict[str, Entry]) -> None:
    """The time of one image by the number of images at once."""
    lines(axes, measured(cases, "scaling-images"), "images", lambda entry: entry["lesions"] / entry["images"])
    titled(axes, "Single deletion, larger batches", "images in a batch", "seconds for an image, all blocks")


def measured(cases: dict[str, Entry], case: str) -> list[Entry]:
    """Return a case's measurements that did not fail."""
    return [entry for entry in cases.get(case, {"entries": []})["entries"] if "failed" not in entry]


def bars(axes: Axes, entries: list[Entry], values: list[float], form: str) -> None:
    """Draw a bar for each network, with its number, and its kind of lesions if it has one."""
    if not entries:
        return
    drawn = axes.barh(range(len(values)), values, color=BLUE, height=0.6)
    axes.bar_label(drawn, [form.format(value) for value in values], padding=3, fontsize="small")
    labels = [f"{entry['model']}" + (f", {entry['kind']}" if "kind" in entry else "") for entry in entries]
    axes.set_yticks(range(len(values)), labels, fontsize="small")
    axes.invert_yaxis()
    axes.margins(x=0.15)


def lines(axes: Axes, entries: Iterable[Entry], x: str, factor: Callable[[Entry], float]) -> None:
    """Draw each contender's time for one lesion, times a factor, over a number of the measurement."""
    points: dict[str, list[tuple[float, float]]] = {}
    for entry in entries:
        for name, contender in entry["contenders"].items():
            points.setdefault(name, []).append((entry[x], contender["seconds_for_one"] * factor(entry)))
    for name, of in points.items():
        colour, marker = LOOK[name]
        axes.plot(*zip(*of, strict=True), color=colour, marker=marker, markersize=5)
    if points:
        axes.set_xscale("log")
        axes.set_yscale("log")
        ticks = sorted({point[0] for of in points.values() for point in of})
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.set_xticks([], minor=True)


def titled(axes: Axes, title: str, x: str, y: str = "") -> None:
    """Label the axes."""
    axes.set_title(title, loc="left", fontsize="medium")
    axes.set_xlabel(x, fontsize="small")
    axes.set_ylabel(y, fontsize="small")


if __name__ == "__main__":
    for device in ("cpu", "cuda"):
        write(FOLDER, device)
