"""The figure: one device's networks and cases on a page, drawn from the results."""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

from resnet_lesion.plots.drawing import BLUE, GREEN, GREY, VERMILLION

from .gradients import LOOP
from .lesions import ACCELERATED, FEATURES, HOOKS, LAYERS, REPLACED
from .report import Entry, read
from .timing import OURS
from .training import ALL

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
ENGINE = ("engine-single", "engine-memory-kept", "engine-deletions")


def write(folder: Path, device: str) -> Path | None:
    """Draw one device's results to ``benchmarks-DEVICE.png`` in their folder; None if there are none."""
    cases = read(folder, device)
    if not cases:
        return None
    figure = Figure((16, 14), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.1)
    grid = figure.add_gridspec(4, 3, width_ratios=[1.2, 1, 1])
    panels: list[tuple[Any, tuple[str, ...], str, Callable[[Axes, list[Entry]], None]]] = [
        (grid[:, 0], COMPARISONS, "Times as long as resnet-lesion", comparisons),
        (grid[0, 1], ("exact-paths",), "Exact gradients of all path lengths", exact_paths),
        (grid[0, 2], ("training",), "Training some random blocks", training),
        (grid[1, 1], ENGINE, "Engine overhead", overhead),
        (grid[1, 2], ENGINE, "Engine throughput", throughput),
        (grid[2, 1], ("scaling-blocks",), "Single deletion, deeper networks", scaling_blocks),
        (grid[2, 2], ("scaling-lesions",), "More random deletions", scaling_lesions),
        (grid[3, 1], ("scaling-images",), "Single deletion, larger batches", scaling_images),
    ]
    for place, names, title, draw in panels:
        axes = figure.add_subplot(place)
        axes.set_title(title, loc="left", fontsize="medium")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(True, color="0.9")
        axes.set_axisbelow(True)
        if entries := measured(cases, *names):
            draw(axes, entries)
        else:
            axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", color=GREY)
    legend = figure.add_subplot(grid[3, 2])
    legend.axis("off")
    for name, (colour, marker) in LOOK.items():
        legend.plot([], [], color=colour, marker=marker, label=name)
    legend.legend(loc="center left", frameon=False)
    machine = next(iter(cases.values()))["machine"]
    where = machine["processor"] if device == "cpu" else machine["device"]
    figure.suptitle(f"resnet-lesion against what a user would write instead: {where}, threads: {machine['threads']}")
    path = folder / f"benchmarks-{device}.png"
    figure.savefig(path, dpi=100)
    return path


def measured(cases: dict[str, Entry], *names: str) -> list[Entry]:
    """Return some cases' measurements that did not fail, each with the name of its case."""
    return [
        {"case": name, **entry}
        for name in names
        for entry in cases.get(name, {"entries": []})["entries"]
        if "failed" not in entry
    ]


def comparisons(axes: Axes, entries: list[Entry]) -> None:
    """For each case and network, how many times as long each alternative takes."""
    for y, entry in enumerate(entries):
        for name, contender in entry["contenders"].items():
            colour, marker = LOOK[name]
            axes.plot(contender["times_as_long"], y, marker, color=colour, markersize=8)
    for case, of in groupby(range(len(entries)), lambda y: entries[y]["case"]):
        top = next(of) - 0.5
        axes.axhline(top, color="black", linewidth=0.8)
        place = axes.get_yaxis_transform()
        axes.text(0.99, top + 0.05, case.replace("-", " "), transform=place, ha="right", va="top")
    axes.axvline(1, color=BLUE, linewidth=1)
    logarithmic(axes.xaxis)
    axes.set_yticks(range(len(entries)), [entry["model"] for entry in entries])
    axes.set_ylim(len(entries) - 0.5, -0.5)
    axes.set_xlabel("time for one lesion or path / that of resnet-lesion")


def exact_paths(axes: Axes, entries: list[Entry]) -> None:
    """The cost of all path lengths in plain passes, with their number."""
    bars(axes, entries, [entry["contenders"][OURS]["times_as_long"] for entry in entries], "{:.0f}")
    for y, entry in enumerate(entries):
        axes.plot(entry["path_lengths"], y, "|", color="black", markersize=16)
    axes.set_xlabel("plain forward and backward passes; | number of lengths")


def training(axes: Axes, entries: list[Entry]) -> None:
    """The time of a mini-batch by the number of blocks in it."""
    (entry,) = entries
    contenders, blocks = entry["contenders"], entry["blocks_in_a_batch"]
    some = sorted((blocks[name], contenders[name]["seconds_for_one"]) for name in contenders if name != ALL)
    axes.plot(*zip(*some, strict=True), "o-", color=BLUE, label=f"some, {entry['model']}")
    axes.plot(blocks[ALL], contenders[ALL]["seconds_for_one"], "s", color=VERMILLION, label="plain training of all")
    axes.set_ylim(0)
    axes.legend(frameon=False, fontsize="small", loc="lower right")
    axes.set(xlabel="blocks in a mini-batch", ylabel="seconds for a mini-batch")


def overhead(axes: Axes, entries: list[Entry]) -> None:
    """What the engine adds to the bare block computations."""
    bars(axes, entries, [100 * entry["overhead"] for entry in entries], "{:.1f}")
    axes.axvline(10, color="black", linestyle="--", linewidth=1)
    axes.set_xlabel("% of the bare block computations; dashed: target")


def throughput(axes: Axes, entries: list[Entry]) -> None:
    """The engine's floating-point operations per second against those of the model's own forward pass."""
    bars(axes, entries, [100 * entry["share_of_plain_throughput"] for entry in entries], "{:.0f}")
    axes.axvline(100, color="black", linestyle="--", linewidth=1)
    axes.set_xlabel("% of plain forward passes, at their best")


def scaling_blocks(axes: Axes, entries: list[Entry]) -> None:
    """The time of a whole study by the depth of the network."""
    lines(axes, entries, "n_blocks", lambda entry: entry["lesions"])
    axes.set(xlabel="blocks", ylabel="seconds for all blocks")


def scaling_lesions(axes: Axes, entries: list[Entry]) -> None:
    """The time of one lesion by the number of lesions."""
    lines(axes, entries, "lesions", lambda _: 1)
    axes.set(xlabel="lesions", ylabel="seconds for one lesion")


def scaling_images(axes: Axes, entries: list[Entry]) -> None:
    """The time of one image by the number of images at once."""
    lines(axes, entries, "images", lambda entry: entry["lesions"] / entry["images"])
    axes.set(xlabel="images in a batch", ylabel="seconds for an image, all blocks")


def bars(axes: Axes, entries: list[Entry], values: list[float], form: str) -> None:
    """Draw a bar for each network, labelled with its value, and with its kind of lesions if it has one."""
    drawn = axes.barh(range(len(values)), values, color=BLUE, height=0.6)
    axes.bar_label(drawn, [form.format(value) for value in values], padding=3, fontsize="small")
    labels = [entry["model"] + (f", {kind_of(entry)}" if "kind" in entry else "") for entry in entries]
    axes.set_yticks(range(len(values)), labels, fontsize="small")
    axes.invert_yaxis()
    axes.margins(x=0.15)


def kind_of(entry: Entry) -> str:
    """Name the kind of lesions, and what else was special."""
    return entry["kind"] + (", memory kept" if entry["case"] == "engine-memory-kept" else "")


def lines(axes: Axes, entries: list[Entry], x: str, factor: Callable[[Entry], float]) -> None:
    """Draw each contender's time for one lesion, times a factor, over a number of the measurement."""
    for name in entries[0]["contenders"]:
        colour, marker = LOOK[name]
        times = [entry["contenders"][name]["seconds_for_one"] * factor(entry) for entry in entries]
        axes.plot([entry[x] for entry in entries], times, color=colour, marker=marker, markersize=5)
    logarithmic(axes.yaxis)
    logarithmic(axes.xaxis)
    axes.set_xticks([entry[x] for entry in entries])


def logarithmic(axis: Axis) -> None:
    """Make an axis logarithmic, with plain numbers at 1, 2, 5, 10, ..."""
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_locator(NullLocator())
