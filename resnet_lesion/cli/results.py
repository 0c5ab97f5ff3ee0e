"""``resnet-lesion show``, ``plot`` and ``report``: what a result's file holds."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from resnet_lesion.cli.options import check_folder, check_out
from resnet_lesion.cli.parser import add_command


def add(commands: Any) -> None:
    """Add the subcommands."""
    command = add_command(
        commands,
        "show",
        show,
        "print a readable summary of a result",
        "resnet-lesion show resnet50.nc",
        "resnet-lesion show resnet50.nc --json | jq .groups.deletion.data_vars.error.data",
    )
    command.add_argument("file", type=Path, metavar="FILE.nc")
    command.add_argument("--json", action="store_true", help="print all of it as JSON")

    command = add_command(
        commands,
        "plot",
        plot,
        "draw all figures of a result as PNG files",
        "resnet-lesion plot resnet50.nc --out figures/",
    )
    command.add_argument("file", type=Path, metavar="FILE.nc")
    command.add_argument("--out", type=Path, metavar="DIR", help="where to write (default: FILE-figures)")

    command = add_command(
        commands,
        "report",
        report,
        "write a result as one HTML page: figures, tables, and where it came from",
        "resnet-lesion report resnet50.nc --out resnet50.html",
    )
    command.add_argument("file", type=Path, metavar="FILE.nc")
    command.add_argument("--out", type=Path, metavar="FILE.html", help="the file to write (default: FILE.html)")


def show(args: argparse.Namespace) -> None:
    """Print a result."""
    from resnet_lesion.reports.summary import as_json, summarise
    from resnet_lesion.results import storage

    result = storage.open(args.file)
    print(as_json(result) if args.json else summarise(result))


def plot(args: argparse.Namespace) -> None:
    """Draw a result and print the figures' paths."""
    from resnet_lesion.plots.catalogue import save_figures
    from resnet_lesion.results import storage

    result, out = storage.open(args.file), args.out or args.file.with_name(f"{args.file.stem}-figures")
    check_folder(out)
    for path in save_figures(result, out):
        print(path)


def report(args: argparse.Namespace) -> None:
    """Write a result as a page."""
    out = args.out or args.file.with_suffix(".html")
    check_out(out)
    from resnet_lesion.reports.page import write_report
    from resnet_lesion.results import storage

    write_report(storage.open(args.file), out)
    print(f"Written to {out}.")
