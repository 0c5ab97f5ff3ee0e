"""Time contenders side by side in one run, and describe the machine."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

OURS = "resnet-lesion"
PACKAGES = ("torch", "timm", "captum", "numpy", "resnet-lesion")


def side_by_side(
    contenders: Mapping[str, Callable[[], object]], turns: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Time each contender once in every turn, so that a slow moment of the machine affects them all.

    Every other turn runs in reverse order, because what runs first finds the memory as another left it.

    Run each once beforehand, as a check of its results does: the first run is slower.

    Args:
        contenders: What to time, by name.
        turns: How many times.
        clock: Returns seconds; for instance ``time.process_time`` if other processes use the processor too.

    Returns:
        Seconds by name of the contender, one for each turn.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(turns):
        for name, run in list(contenders.items())[:: -1 if turn % 2 else 1]:
            synchronize()
            start = clock()
            run()
            synchronize()
            seconds[name].append(clock() - start)
    return seconds


def compared(
    seconds: Mapping[str, list[float]], units: Mapping[str, int], unit: str, reference: str = OURS
) -> dict[str, dict[str, Any]]:
    """Compare contenders that did different amounts of the same work.

    Args:
        seconds: What :func:`side_by_side` returned.
        units: How much of the work each did.
        unit: What that is counted in: "lesions", "paths".
        reference: The one that the others are compared with.

    Returns:
        For each contender its seconds, their median, how much it did, the time for one unit, and how many times as
        long as the reference it takes for one.
    """
    contenders: dict[str, dict[str, Any]] = {
        name: {
            "seconds": values,
            "median_seconds": statistics.median(values),
            unit: units[name],
            "seconds_for_one": statistics.median(values) / units[name],
        }
        for name, values in seconds.items()
    }
    for name, contender in contenders.items():
        contender["times_as_long"] = times_as_long(contenders, name, reference, unit)
    return contenders


def times_as_long(contenders: Mapping[str, dict[str, Any]], slow: str, fast: str, unit: str) -> float:
    """Return the median over the turns of how many times as long ``slow`` takes for one unit as ``fast``."""
    return statistics.median(ratios(contenders, slow, fast, unit))


def ratios(contenders: Mapping[str, dict[str, Any]], slow: str, fast: str, unit: str) -> list[float]:
    """Return, for each turn, how many times as long ``slow`` takes for one unit as ``fast``."""
    pairs = zip(contenders[slow]["seconds"], contenders[fast]["seconds"], strict=True)
    return [a / b * contenders[fast][unit] / contenders[slow][unit] for a, b in pairs]


def synchronize() -> None:
    """Wait for the accelerator, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def machine(device: str) -> dict[str, object]:
    """Describe the machine, and how busy it is."""
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_average": load(),
        "system": platform.system(),
        "python": platform.python_version(),
        "versions": {package: version(package) for package in PACKAGES},
    }


def load() -> float | None:
    """Return how many processes wanted a core in the last minute; more than our threads means that others did too."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def processor() -> str:
    """Name the processor."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
