"""``resnet-lesion show``, ``plot`` and ``report``: what a result's file holds."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnet_lesion.cli.options import path
from resnet_lesion.cli.output import HTML, check_folder, check_out, words_beside
from resnet_lesion.cli.parser import add_command

if TYPE_CHECKING:
    import xarray as xr

# the dimensions of what is said of blocks and paths, and an attribute of everything that was measured
_OURS = {"layer", "path_length", "weights_sha256"}


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
    command.add_argument("file", type=path, metavar="FILE.nc")
    command.add_argument("--json", action="store_true", help="print all of it as JSON")

    command = add_command(
        commands,
        "plot",
        plot,
        "draw all figures of a result as PNG files",
        "resnet-lesion plot resnet50.nc --out figures/",
    )
    command.add_argument("file", type=path, metavar="FILE.nc")
    command.add_argument("--out", type=path, metavar="DIR", help="where to write (default: FILE-figures)")

    command = add_command(
        commands,
        "report",
        report,
        "write a result as one HTML page: figures, tables, and where it came from",
        "resnet-lesion report resnet50.nc --out resnet50.html",
    )
    command.add_argument("file", type=path, metavar="FILE.nc")
    command.add_argument("--out", type=path, metavar="FILE.html", help="the file to write (default: FILE.html)")


def show(args: argparse.Namespace) -> None:
    """Print a result."""
    from resnet_lesion.reports.summary import as_json, summarise

    result = _result(args.file)
    print(as_json(result) if args.json else summarise(result))


def plot(args: argparse.Namespace) -> None:
    """Draw a result and print the figures' paths."""
    out = args.out or args.file.with_name(f"{args.file.stem}-figures")
    result = _result(args.file)
    check_folder(out)
    from resnet_lesion.plots.catalogue import save_figures

    for figure in save_figures(result, out):
        print(figure)


def report(args: argparse.Namespace) -> None:
    """Write a result as a page."""
    out = args.out or args.file.with_suffix(".html")
    result = _result(args.file)
    check_out(out, HTML, sources=[args.file])
    from resnet_lesion.reports.page import write_report

    write_report(result, out)
    print(f"Written to {out}.", file=words_beside(out))


def _result(file: Path) -> xr.Dataset | xr.DataTree:
    """Open a result, and refuse what is netCDF of something else."""
    from resnet_lesion.results import storage
    from resnet_lesion.results.kinds import kinds_of
    from resnet_lesion.results.quantities import groups

    result = storage.open(file)
    datasets = [dataset for _, dataset in groups(result)]
    if any({"fingerprint", "done"} <= dataset.attrs.keys() for dataset in datasets):
        raise ValueError(f"{str(file)!r} is unfinished work of a study, from which the same study resumes; no result.")
    if not any(kinds_of(dataset) or _OURS & {*dataset.dims, *dataset.attrs} for dataset in datasets):
        names = ", ".join(sorted({str(name) for dataset in datasets for name in dataset.data_vars}))
        raise ValueError(
            f"expected a result of resnet-lesion, got {str(file)!r}, which is netCDF of something else: it has "
            f"{f'the variables {names:.100}' if names else 'no variable'}."
        )
    return result
