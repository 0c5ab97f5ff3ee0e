"""What the engine's overhead is made of: its time, page faults and operations beside those of the bare computations.

Writes ``results/profile-engine-MODEL-cpu.txt``. Linux only.

``python benchmarks/profile_engine.py resnetv2_101``, again with
``MALLOC_TRIM_THRESHOLD_=2000000000 MALLOC_MMAP_THRESHOLD_=1000000000`` for what the allocator costs.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from cases import CASES
from engine import bare_computations, batch_sizes, levels
from lesions import analysis, rows_of
from networks import Subject
from profile_deletion import processor, profile
from report import FOLDER
from timing import OURS

from resnet_lesion.results.provenance import weights_hash

_KEPT = CASES["engine-memory-kept"].environment
_TURNS = 3


def usage(run: Callable[[], object]) -> np.ndarray:
    """Return seconds of the clock, of user and system time, and thousands of page faults of one call."""
    before, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    run()
    elapsed, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
    used = (after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime)
    return np.array([elapsed, *used, (after.ru_minflt - before.ru_minflt) / 1000])


def main() -> None:
    """Measure, profile, write."""
    specs = {spec.model: spec for spec in CASES["engine-single"].specs["cpu"]}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=specs)
    subject = Subject(specs[parser.parse_args().model], "cpu")
    network, analyze = subject.network, analysis(subject, "single")
    rows = np.vstack([np.arange(len(network)), rows_of(analyze(network))])
    bare = bare_computations(subject, levels(rows), batch_sizes(subject, analyze))
    contenders: dict[str, Callable[[], object]] = {OURS: partial(analyze, network), "the bare block computations": bare}
    once = {
        "a hash of the weights": partial(weights_hash, network.model),
        "a pass to learn the shapes": partial(network.trace, subject.inputs[:1]),
    }
    with torch.no_grad():
        found = [[usage(run) for run in contenders.values()] for _ in range(_TURNS)]
        medians = np.median(found, axis=0)
        overhead = statistics.median(ours[0] / bare[0] - 1 for ours, bare in found)
        kept = all(os.environ.get(name) == value for name, value in _KEPT.items())
        lines = [
            f"Single deletion of {subject.spec.model}, {subject.spec.images} images; {processor()}, "
            f"{torch.get_num_threads()} threads, torch {torch.__version__}; glibc "
            + ("keeps its memory." if kept else "gives memory back between passes."),
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
    text = "\n".join(lines) + "\n"
    suffix = "-memory-kept" if kept else ""
    (FOLDER / f"profile-engine-{subject.spec.model}-cpu{suffix}.txt").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
