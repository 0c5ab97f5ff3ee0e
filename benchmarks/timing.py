"""Time alternatives side by side in one run, and say on what machine."""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import torch

RESULTS = Path(__file__).parent / "results"


def side_by_side(alternatives: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Time each alternative ``repeats`` times, taking turns, after one warm-up each.

    Returns:
        Seconds by name of the alternative.
    """
    for run in alternatives.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in alternatives}
    for _ in range(repeats):
        for name, run in alternatives.items():
            synchronize()
            start = time.perf_counter()
            run()
            synchronize()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def ratio(seconds: dict[str, list[float]], slow: str, fast: str) -> float:
    """Return the median over the turns of how many times as long ``slow`` took as ``fast``."""
    return statistics.median(a / b for a, b in zip(seconds[slow], seconds[fast], strict=True))


def synchronize() -> None:
    """Wait for the accelerator, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def report(name: str, result: dict[str, object]) -> None:
    """Print a result and write it to ``results/NAME.json`` with a description of the machine."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    machine = {
        "device": device,
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "versions": {package: version(package) for package in ("torch", "timm", "resnet-lesion")},
    }
    text = json.dumps({"benchmark": name, **result, "machine": machine}, indent=2)
    RESULTS.mkdir(exist_ok=True)
    suffix = "cpu" if device == "cpu" else "gpu"
    (RESULTS / f"{name}-{suffix}.json").write_text(text + "\n")
    print(text)


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
