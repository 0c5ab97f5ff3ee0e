"""Measure the cases, each written to a file as it ends."""

from __future__ import annotations

import argparse
import os
import sys
import time
import traceback
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from . import figure, tables
from .cases import CASES, Case
from .networks import Spec
from .report import FOLDER, Entry, Report, read


def add(commands: Any) -> None:
    """Add the command ``run``."""
    parser = commands.add_parser("run", help="measure, and write results/ with its figures and the README's tables")
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES), metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--device", nargs="+", choices=devices, default=devices, help="default: all available")
    parser.add_argument("--quick", action="store_true", help="the least of everything, to check that it runs")
    parser.add_argument("--resume", action="store_true", help="skip cases whose results are complete")
    parser.add_argument("--out", type=Path, help="folder for the results; default benchmarks/results, or its quick/")
    parser.set_defaults(command=run_all)


def run_all(args: argparse.Namespace) -> int:
    """Measure; return 1 if anything failed, else 0."""
    folder = args.out or (FOLDER / "quick" if args.quick else FOLDER)
    folder.mkdir(parents=True, exist_ok=True)
    failures = 0
    for device in args.device:
        complete = {name for name, case in read(folder, device).items() if args.resume and case["complete"]}
        for name in args.only:
            if name not in complete:
                failures += run(name, CASES[name], device, "quick" if args.quick else device, folder)
        figure.write(folder, device)
    if folder == FOLDER:
        tables.write()
    if failures:
        print(f"{failures} measurements failed; the others are in {folder}.", file=sys.stderr)
    return int(failures > 0)


def run(name: str, case: Case, device: str, size: str, folder: Path) -> int:
    """Measure one case on all of its networks, each written as it ends; return how many failed."""
    specs = case.specs[size]
    if not specs:
        return 0
    report = Report(folder / f"{name}-{device}.json", name, case.about, device, len(specs))
    for spec in specs:
        start = time.perf_counter()
        report.add(measured(case, spec, device))
        entry = report.entries[-1]
        outcome = entry.get("failed", "")
        print(f"{device} {name} {entry['model']}: {time.perf_counter() - start:.0f} s {outcome}", flush=True)
    return sum("failed" in entry for entry in report.entries)


def measured(case: Case, spec: Spec, device: str) -> Entry:
    """Measure one case on one network; a failure is recorded in the result, and the rest continues."""
    if device == "cuda":
        torch.cuda.empty_cache()  # what the previous network left
    try:
        if not case.environment:
            return case.measure(spec, device)
        # a C library reads its variables when a process starts
        with patch.dict(os.environ, case.environment), ProcessPoolExecutor(1, get_context("spawn")) as process:
            return process.submit(measured, replace(case, environment={}), spec, device).result()
    except Exception as error:
        traceback.print_exc()
        return {"model": spec.model, "failed": f"{type(error).__name__}: {error}"}
