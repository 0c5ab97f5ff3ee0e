"""Where the time of a single-deletion sweep goes, before and after ``rl.accelerate``, and how much that saves.

The operations that take longest, as ``torch.profiler`` counts them, and the seconds of all contenders, taking turns in
one process and on one thread: seconds of processor time, as the machine may be busy, or of the clock on a GPU.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import timm
import torch

import resnet_lesion as rl

from . import alternatives
from .engine import bare_computations, batch_sizes, levels
from .lesions import HOOKS, analysis, check, full_precision, rows_of
from .networks import Spec, Workload
from .report import FOLDER
from .timing import processor, side_by_side

_LOOP = "hook loop, the model as it is"


def add(commands: Any) -> None:
    """Add the command ``profile-deletion``."""
    parser = commands.add_parser("profile-deletion", help="write where the time of a single-deletion sweep goes")
    parser.add_argument("model", nargs="?", default="resnet50", help="timm's name of it; default resnet50")
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--pixels", type=int, default=224)
    parser.add_argument("--turns", type=int, default=5)
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    """Measure, and write ``results/profile-single-deletion-MODEL-DEVICE.txt``."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_num_threads(1)
    text = report(Workload(Spec(args.model, args.pixels, args.images, turns=args.turns), device))
    suffix = "gpu" if device == "cuda" else "cpu"
    (FOLDER / f"profile-single-deletion-{args.model}-{suffix}.txt").write_text(text)
    print(text)
    return 0


def report(workload: Workload) -> str:
    """Check that all find the same results, time, and profile."""
    network, spec, analyze = workload.network, workload.spec, analysis(workload, "single")
    on_gpu = workload.device == "cuda"
    start = time.perf_counter()
    compiled = rl.accelerate(network.model, workload.inputs, compile=True)
    analyze(compiled)
    compile_seconds = time.perf_counter() - start
    accelerated = rl.accelerate(network.model, workload.inputs)
    result = analyze(network)
    rows = rows_of(result)
    loop = partial(alternatives.hook_loop, network, rows, *workload.data)
    with full_precision():
        check(HOOKS, analyze(network), range(len(rows)), loop())
    sweeps: dict[str, Callable[[], object]] = {
        "sweep, the model as it is": partial(analyze, network),
        "sweep, accelerated": partial(analyze, accelerated),
        "sweep, accelerated and compiled": partial(analyze, compiled),
    }
    differing = {name: int((sweep().correct != result.correct).sum()) for name, sweep in sweeps.items()}
    work = levels(np.vstack([np.arange(len(network)), rows])), batch_sizes(workload, analyze)
    contenders = {
        _LOOP: loop,
        **sweeps,
        "its blocks alone, as they are": bare_computations(network, workload.inputs, *work),
        "its blocks alone, accelerated": bare_computations(accelerated, workload.inputs, *work),
    }
    with torch.no_grad():
        seconds = side_by_side(contenders, spec.turns, time.perf_counter if on_gpu else time.process_time)
        profiles = [f"\n{name}\n{profile(sweep)}" for name, sweep in sweeps.items()]
    lines = [
        f"Single deletion of {spec.model}, {spec.images} images of {spec.pixels} x {spec.pixels}; "
        f"counts that differ: {sum(differing.values())}.",
        f"{torch.cuda.get_device_name() if on_gpu else processor()}, threads: {torch.get_num_threads()}, "
        f"torch {torch.__version__}, timm {timm.__version__}.",
        f"Accelerated: {accelerated.acceleration}.",
        f"Compiling and the first sweep took {compile_seconds:.0f} s.",
        "",
        f"{f'Medians of {spec.turns} turns':34}{'clock' if on_gpu else 'processor'} seconds   hook loop / this",
        *(
            f"{name:34}{statistics.median(values):12.3f}"
            f"{statistics.median(a / b for a, b in zip(seconds[_LOOP], values, strict=True)):19.2f}"
            for name, values in seconds.items()
        ),
        *profiles,
    ]
    return "\n".join(lines) + "\n"


def profile(run: Callable[[], object]) -> str:
    """Return the table of the operations that take longest."""
    on_gpu = torch.cuda.is_available()
    activities = [torch.profiler.ProfilerActivity.CPU]
    activities += [torch.profiler.ProfilerActivity.CUDA] if on_gpu else []
    with torch.profiler.profile(activities=activities) as profiler:
        run()
    key = "self_cuda_time_total" if on_gpu else "self_cpu_time_total"
    table = profiler.key_averages().table(sort_by=key, row_limit=12, max_name_column_width=32)
    return "\n".join(line.rstrip() for line in table.splitlines())
