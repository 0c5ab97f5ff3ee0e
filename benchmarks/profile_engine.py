"""What the engine's overhead is made of: its time, page faults and operations against those of the bare computations.

Linux only.
"""

from __future__ import annotations

import os
import resource
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch

from resnet_lesion.results.provenance import weights_hash

from .cases import CASES
from .engine import BARE, bare_computations, batch_sizes, levels
from .lesions import analysis, rows_of
from .networks import Spec, Workload
from .profile_deletion import profile
from .report import FOLDER
from .timing import OURS, processor

_KEPT = CASES["engine-memory-kept"].environment
_TURNS = 3


def usage(run: Callable[[], object]) -> np.ndarray:
    """Return seconds of the clock, of user and system time, and thousands of page faults of one call."""
    before, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    run()
    elapsed, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
    used = (after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime)
    return np.array([elapsed, *used, (after.ru_minflt - before.ru_minflt) / 1000])


def add(commands: Any) -> None:
    """Add the command ``profile-engine``."""
    parser = commands.add_parser(
        "profile-engine",
        help="write what the engine's overhead is made of",
        epilog="Run it again with MALLOC_TRIM_THRESHOLD_=2000000000 MALLOC_MMAP_THRESHOLD_=1000000000 to see what the "
        "allocator costs.",
    )
    specs = {spec.model: spec for spec in CASES["engine-single"].specs["cpu"]}
    parser.add_argument("model", choices=specs)
    parser.set_defaults(command=lambda args: run(specs[args.model]))


def run(spec: Spec) -> int:
    """Measure, and write ``results/profile-engine-MODEL-cpu.txt``."""
    text = report(Workload(spec, "cpu"))
    (FOLDER / f"profile-engine-{spec.model}-cpu{'-memory-kept' if memory_kept() else ''}.txt").write_text(text)
    print(text)
    return 0


def memory_kept() -> bool:
    """Tell whether glibc was told not to give memory back between passes."""
    return all(os.environ.get(name) == value for name, value in _KEPT.items())


def report(workload: Workload) -> str:
    """Measure and profile."""
    network, analyze = workload.network, analysis(workload, "single")
    rows = np.vstack([np.arange(len(network)), rows_of(analyze(network))])
    bare = bare_computations(network, workload.inputs, levels(rows), batch_sizes(workload, analyze))
    contenders: dict[str, Callable[[], object]] = {OURS: partial(analyze, network), BARE: bare}
    once = {
        "a hash of the weights": partial(weights_hash, network.model),
        "a pass to learn the shapes": partial(network.trace, workload.inputs[:1]),
    }
    with torch.no_grad():
        found = [[usage(run) for run in contenders.values()] for _ in range(_TURNS)]
        medians = np.median(found, axis=0)
        overhead = statistics.median(ours[0] / bare[0] - 1 for ours, bare in found)
        lines = [
            f"Single deletion of {workload.spec.model}, {workload.spec.images} images; {processor()}, "
            f"{torch.get_num_threads()} threads, torch {torch.__version__}; glibc "
            + ("keeps its memory." if memory_kept() else "gives memory back between passes."),
            "",
            f"{f'Medians of {_TURNS} turns':32}{'clock':>10}{'user':>10}{'system':>10}{'1000 page faults':>20}",
            *(
                f"{name:32}{clock:8.2f} s{user:8.2f} s{system:8.2f} s{faults:20.0f}"
                for name, (clock, user, system, faults) in zip(contenders, medians, strict=True)
            ),
            f"Overhead: {100 * overhead:.1f} %. In it, once in an analysis:",
            *(f"  {name}: {usage(run)[0]:.2f} s" for name, run in once.items()),
            *(f"\n{name}\n{profile(run)}" for name, run in contenders.items()),
        ]
    return "\n".join(lines) + "\n"
