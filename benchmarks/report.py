"""Results as JSON: written after each measurement, with the machine and the targets next to the figures."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from resnet_lesion.results.storage import whole_file

from .lesions import ACCELERATED, HOOKS
from .startup import COMMANDS, PACKAGE, TORCH
from .timing import OURS, load, machine, times_as_long

FOLDER = Path(__file__).parent / "results"
"""Where the committed results are."""

Entry = dict[str, Any]


@dataclass
class Report:
    """One case's measurements on one device, in a file that is always whole.

    Attributes:
        path: The file.
        case: Name of the case.
        about: What is measured.
        device: "cpu" or "cuda".
        n_entries: How many measurements there will be.
        entries: Those made so far.
    """

    path: Path
    case: str
    about: str
    device: str
    n_entries: int
    entries: list[Entry] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._machine = machine(self.device)

    def add(self, entry: Entry) -> None:
        """Write another measurement."""
        self.entries.append(entry | {"load_average_after": load()})
        content = {
            "case": self.case,
            "about": self.about,
            "complete": len(self.entries) == self.n_entries and not any("failed" in other for other in self.entries),
            "machine": self._machine,
            "targets": targets(self.case, self.device, self.entries),
            "entries": self.entries,
        }
        with whole_file(self.path) as file:
            file.write_text(json.dumps(content, indent=2) + "\n")


def targets(case: str, device: str, entries: Iterable[Entry]) -> list[Entry]:
    """Compare what was measured with the targets.

    Returns:
        For each network with a target: the target with its bound, the figure, and whether it is met.
    """
    found = []
    for entry in entries:
        if "failed" in entry:
            continue
        if case == "single-deletion" and (device == "cpu" or entry["model"].startswith("cifar")):
            least = 3 if device == "cpu" else 10
            # the accelerated network may represent ours if its counts are the same
            ours = ACCELERATED if entry.get("accelerated_counts_that_differ") == 0 else OURS
            figure = times_as_long(entry["contenders"], HOOKS, ours, "lesions")
            what = f"the {HOOKS} takes at least {least} times as long as {ours}"
            found.append({"model": entry["model"], "target": what, "figure": figure, "met": figure >= least})
        if case == "start-up":
            found += _startup_targets(entry)
        if "overhead" in entry:
            what = "the engine adds at most 10 % to the bare block computations"
            figure = 100 * entry["overhead"]
            found.append({"model": entry["model"], "target": what, "figure": figure, "met": figure <= 10})
        for name, share in entry.get("share_of_proof", {}).items():
            what, figure = f"the proof takes at most 2 % of {name} on {entry['images']} images", 100 * share
            found.append({"model": entry["model"], "target": what, "figure": figure, "met": figure <= 2})
    return found


def _startup_targets(entry: Entry) -> list[Entry]:
    seconds = {name: contender["seconds"] for name, contender in entry["contenders"].items()}
    more = [a - b for a, b in zip(seconds[PACKAGE], seconds[TORCH], strict=True)]
    aims = [
        (f"`{PACKAGE}` takes at most 0.7 s longer than `{TORCH}`", statistics.median(more), 0.7),
        *(
            (f"`{name}` takes at most 0.3 s", statistics.median(seconds[name]), 0.3)
            for name in COMMANDS
            if name in seconds
        ),
    ]
    return [
        {"model": entry["model"], "target": what, "figure": figure, "met": figure <= most}
        for what, figure, most in aims
    ]


def read(folder: Path, device: str) -> dict[str, Entry]:
    """Read one device's results so far, by case."""
    suffix = f"-{device}.json"
    return {path.name.removesuffix(suffix): json.loads(path.read_text()) for path in sorted(folder.glob(f"*{suffix}"))}
