"""The README's tables, written from the results so that no figure is typed by hand."""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import figure
from .cases import CASES
from .engine import BARE, UNIT
from .figure import COMPARISONS, ENGINE, kind_of, measured
from .gradients import LOOP
from .lesions import ACCELERATED, FEATURES, HOOKS, LAYERS, REPLACED
from .proof import ONE_ROW, PROOF, SINGLE
from .report import FOLDER, Entry, read
from .startup import TORCH
from .timing import OURS, ratios

DEVICES = ("cpu", "cuda")
FIRST = "first-h100.json"
PAGE = Path(__file__).parent / "README.md"
_START, _END = "<!-- results: written by python -m benchmarks draw -->", "<!-- end of results -->"
# a load average this far above the number of threads is still that of an idle machine
_IDLE = 1
_ALTERNATIVES = (ACCELERATED, HOOKS, REPLACED, LAYERS, FEATURES, LOOP)


def add(commands: Any) -> None:
    """Add the command ``draw``."""
    parser = commands.add_parser("draw", help="redraw the figures and rewrite the README's tables from results/")
    parser.set_defaults(command=draw)


def draw(_args: argparse.Namespace) -> int:
    """Redraw and rewrite them; nothing is measured."""
    for device in DEVICES:
        figure.write(FOLDER, device)
    write()
    return 0


def write() -> None:
    """Rewrite the tables in place."""
    before, _, rest = PAGE.read_text().partition(_START)
    PAGE.write_text(f"{before}{_START}\n{text(FOLDER)}\n{_END}{rest.partition(_END)[2]}")


def written() -> str:
    """Return what the page contains."""
    return PAGE.read_text().partition(_START)[2].partition(_END)[0].strip()


def text(folder: Path) -> str:
    """Write the tables of all devices with results."""
    parts = [of_device(device, cases) for device in DEVICES if (cases := read(folder, device))]
    if (folder / FIRST).exists():
        parts.append(first_on_a_gpu(json.loads((folder / FIRST).read_text())))
    return "\n\n".join(parts) or "No results yet."


def first_on_a_gpu(found: dict[str, Any]) -> str:
    """Write what one short call found on a GPU: single deletions as one forward pass of the engine, and one by one."""
    machine = found["machine"]
    head = ["network, images, variant", "engine (ms)", "launched after (ms)", "one by one (ms)", "ratio", "peak (GB)"]
    rows, analyses = [], []
    for key, one in found.items():
        if key.startswith("chunk "):
            times = [f"{1e3 * one[name]:.0f}" for name in ("best_s", "host_s", "naive_s")]
            rows.append([key.removeprefix("chunk "), *times, f"{one['ratio']:.1f}", f"{one['peak_GB']:.1f}"])
        elif "peak_GB" in one:
            milliseconds = 1e3 * one.get("best_s", one.get("second_s"))
            analyses.append([key.removesuffix(" {}"), f"{milliseconds:.0f}", f"{one['peak_GB']:.1f}"])
    return "\n\n".join(
        [
            f"### {machine['gpu']}",
            f"One short call, torch {machine['torch']}, TF32 in convolutions by torch's default; a copy moves "
            f"{found['copy']['TB_per_s']:.1f} TB/s. All blocks deleted, one at a time, in one pass of the engine, "
            "against as many plain forward passes of the same model; the best of a few turns. Where the device is "
            "full, the ratio is what shared prefixes save; with few images it is the ratio of kernels launched.",
            table(head, rows),
            "Whole analyses of cifar_preactresnet110:",
            table(["analysis, images, options", "time (ms)", "peak (GB)"], analyses),
        ]
    )


def of_device(device: str, cases: dict[str, Entry]) -> str:
    """Write one device's tables."""
    parts = [
        f"### {device.upper()}",
        about(device, cases),
        f"How many times as long as {OURS} each alternative takes for one lesion or path, medians of paired turns:",
        comparisons(cases),
        "Exact gradients of all path lengths, in plain forward and backward passes:",
        exact_paths(cases),
        "The engine:",
        engine(cases),
        "The proof on the first images, and its share of an analysis, medians of paired turns:",
        proof(cases),
        "Processor time from the start of Python to its end, medians of paired turns:",
        startup(cases),
        "Targets:",
        targets(cases),
        f"![The networks' results, {device.upper()}](results/benchmarks-{device}.png)",
    ]
    return "\n\n".join(parts)


def about(device: str, cases: dict[str, Entry]) -> str:
    """Say on what the results were measured, and what is wrong with them."""
    machine = next(iter(cases.values()))["machine"]
    where = machine["processor"] if device == "cpu" else machine["device"]
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    sentences = [f"{where}, threads: {machine['threads']}; {versions}."]
    if len({json.dumps({**case["machine"], "load_average": None}) for case in cases.values()}) > 1:
        sentences.append("**Mixed**: not all cases were measured on the same machine with the same versions.")
    loads = {name: max(entry["load_average_after"] or 0 for entry in case["entries"]) for name, case in cases.items()}
    busy = [name for name, load in loads.items() if load > machine["threads"] + _IDLE]
    if busy:
        sentences.append(
            f"**Preliminary**: the machine was busy with other work during {', '.join(busy)}, its load average up to "
            f"{max(loads.values()):.1f}."
        )
    unfinished = [name for name, case in cases.items() if not case["complete"]]
    if unfinished:
        sentences.append(f"**Not complete**: {', '.join(unfinished)}.")
    missing = [name for name, case in CASES.items() if case.specs[device] and name not in cases]
    if missing:
        sentences.append(f"**Not measured**: {', '.join(missing)}.")
    return " ".join(sentences)


def comparisons(cases: dict[str, Entry]) -> str:
    """A row for each case and network, a column for each alternative."""
    rows = []
    for entry in measured(cases, *COMPARISONS):
        contenders = entry["contenders"]
        times = [f"{contenders[name]['times_as_long']:.2f}" if name in contenders else "" for name in _ALTERNATIVES]
        one = f"{1000 * contenders[OURS]['seconds_for_one']:.3g} ms"
        rows.append([entry["case"].replace("-", " "), entry["model"], str(entry["images"]), one, *times])
    return table(["case", "network", "images", f"{OURS}, one", *_ALTERNATIVES], rows)


def exact_paths(cases: dict[str, Entry]) -> str:
    """A row for each network."""
    rows = [
        [entry["model"], str(entry["path_lengths"]), f"{entry['contenders'][OURS]['times_as_long']:.1f}"]
        for entry in measured(cases, "exact-paths")
    ]
    return table(["network", "path lengths", "plain passes"], rows)


def engine(cases: dict[str, Entry]) -> str:
    """A row for each network and kind of lesions."""
    rows = [
        [
            entry["model"],
            kind_of(entry),
            *(str(entry[name]) for name in ("block_evaluations", "lower_bound", "naive_block_evaluations")),
            f"{100 * entry['overhead']:.1f} % ({quartiles(overheads(entry), 1)})",
            f"{100 * entry['share_of_plain_throughput']:.0f} % (batch of {entry['fastest_batch']})",
        ]
        for entry in measured(cases, *ENGINE)
    ]
    head = ["network", "lesions", "block evaluations", "lower bound", "naive", "overhead", "of plain throughput"]
    return table(head, rows)


def overheads(entry: Entry) -> list[float]:
    """Return each turn's overhead, in per cent."""
    return [100 * (ratio - 1) for ratio in ratios(entry["contenders"], OURS, BARE, UNIT)]


def proof(cases: dict[str, Entry]) -> str:
    """A row for each network."""
    rows = [
        [
            entry["model"],
            str(entry["pixels"]),
            str(entry["images"]),
            f"{1000 * entry['contenders'][PROOF]['median_seconds']:.3g} ms",
            *(
                f"{100 * share:.2g} % ({quartiles(shares_of_proof(entry, name), 2)})"
                for name, share in entry["share_of_proof"].items()
            ),
        ]
        for entry in measured(cases, "proof")
    ]
    return table(["network", "pixels", "images", "the proof", SINGLE, ONE_ROW], rows)


def shares_of_proof(entry: Entry, name: str) -> list[float]:
    """Return each turn's share, in per cent."""
    return [100 * ratio for ratio in ratios(entry["contenders"], PROOF, name, "images")]


def startup(cases: dict[str, Entry]) -> str:
    """A row for each program."""
    rows = []
    for entry in measured(cases, "start-up"):
        for name, contender in entry["contenders"].items():
            turns = ratios(entry["contenders"], name, TORCH, "starts")
            times = f"{contender['times_as_long']:.2f} ({quartiles(turns, 2)})"
            rows.append([f"`{name}`", f"{contender['median_seconds']:.2f} s", times])
        rows += [[f"`{name}`", "ends with an error", ""] for name in entry["missing"]]
    return table(["program", "processor time", f"times as long as `{TORCH}`"], rows)


def quartiles(values: Sequence[float], digits: int) -> str:
    """Return the lower and the upper quartile of the turns."""
    low, _, high = statistics.quantiles(values, method="inclusive") if len(values) > 1 else [*values] * 3
    return f"{low:.{digits}f} to {high:.{digits}f}"


def targets(cases: dict[str, Entry]) -> str:
    """A row for each target."""
    rows = [
        [name, target["model"], target["target"], f"{target['figure']:.2f}", "met" if target["met"] else "not met"]
        for name, case in cases.items()
        for target in case["targets"]
    ]
    return table(["case", "network", "target", "figure", ""], rows)


def table(head: list[str], rows: list[list[str]]) -> str:
    """Write a Markdown table."""
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *rows])
