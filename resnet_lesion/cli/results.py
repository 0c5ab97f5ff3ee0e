"""``resnet-lesion show``, ``plot`` and ``report``: what a result's file holds."""

from __future__ import annotations

import argparse

from resnet_lesion.cli.options import check_folder, check_out
from resnet_lesion.plots.catalogue import save_figures
from resnet_lesion.reports.page import write_report
from resnet_lesion.reports.summary import as_json, summarise
from resnet_lesion.results import storage


def show_command(args: argparse.Namespace) -> None:
    result = storage.open(args.file)
    print(as_json(result) if args.json else summarise(result))


def plot_command(args: argparse.Namespace) -> None:
    result, out = storage.open(args.file), args.out or args.file.with_name(f"{args.file.stem}-figures")
    check_folder(out)
    for path in save_figures(result, out):
        print(path)


def report_command(args: argparse.Namespace) -> None:
    out = args.out or args.file.with_suffix(".html")
    check_out(out)
    write_report(storage.open(args.file), out)
    print(f"Written to {out}.")
