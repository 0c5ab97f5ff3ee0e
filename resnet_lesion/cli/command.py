"""The command ``resnet-lesion``: demo, study, merge, show, plot, report, train, reproduce, models."""

from __future__ import annotations

import argparse
import ctypes
import os
import shlex
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import shtab

from resnet_lesion.cli.demo import demo_command
from resnet_lesion.cli.models import models_command
from resnet_lesion.cli.options import Command, Formatter, Parser, add_command, not_negative, positive
from resnet_lesion.cli.results import plot_command, report_command, show_command
from resnet_lesion.cli.study import add_study_options, merge_command, study_command
from resnet_lesion.cli.train import add_reproduction_options, add_training_options, reproduce_command, train_command
from resnet_lesion.errors import AdapterError
from resnet_lesion.results.provenance import now


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command; ``command`` is the name of the subcommand that was chosen."""
    whole = Parser(
        prog="resnet-lesion",
        description="Which blocks and paths of a residual network matter? Lesion studies and path gradients.",
        epilog="examples:\n  resnet-lesion demo\n"
        "  resnet-lesion --print-completion bash > ~/.local/share/bash-completion/completions/resnet-lesion",
        formatter_class=Formatter,
    )
    shtab.add_argument_to(whole)
    commands = whole.add_subparsers(parser_class=Command, required=True, metavar="COMMAND", dest="command")

    demo = add_command(
        commands,
        "demo",
        "study the embedded ResNet-110 on handwritten digits, offline, within two minutes",
        "resnet-lesion demo --out resnet-lesion-demo",
    )
    demo.add_argument("--out", type=Path, default=Path("resnet-lesion-demo"), metavar="DIR", help="where to write")
    demo.add_argument(
        "--n-draws", type=positive, default=5, metavar="N", help="random deletions and reorderings of each size"
    )
    demo.add_argument("--num-samples", type=positive, metavar="N", help="use a random subset of the 540 images")
    demo.add_argument("--seed", type=not_negative, default=0, metavar="N", help="seed of everything random")

    run = add_command(
        commands,
        "study",
        "run every analysis of a timm model and save one netCDF file",
        "resnet-lesion study resnet50.a1_in1k --data imagenet/ --num-samples 2000 --out resnet50.nc",
        "resnet-lesion study resnet18 --checkpoint mine.safetensors --num-classes 10 \\\n"
        "      --data torch/cifar10 --data-dir data/ --download --out mine.nc",
        "resnet-lesion study resnet50.a1_in1k --data imagenet/ --shard 3/8 --run-folder run/ --out shard-3.nc",
    )
    add_study_options(run)

    together = add_command(
        commands,
        "merge",
        "put the results of all shards of a study together",
        "resnet-lesion merge shard-*.nc --out resnet50.nc",
    )
    together.add_argument("files", type=Path, nargs="+", metavar="FILE.nc", help="what study wrote for each shard")
    together.add_argument("--out", type=Path, required=True, metavar="FILE.nc", help="the file to write")

    show = add_command(
        commands,
        "show",
        "print a readable summary of a result",
        "resnet-lesion show resnet50.nc",
        "resnet-lesion show resnet50.nc --json | jq .groups.deletion.data_vars.error.data",
    )
    show.add_argument("file", type=Path, metavar="FILE.nc")
    show.add_argument("--json", action="store_true", help="print all of it as JSON")

    plot = add_command(
        commands,
        "plot",
        "draw all figures of a result as PNG files",
        "resnet-lesion plot resnet50.nc --out figures/",
    )
    plot.add_argument("file", type=Path, metavar="FILE.nc")
    plot.add_argument("--out", type=Path, metavar="DIR", help="where to write (default: FILE-figures)")

    report = add_command(
        commands,
        "report",
        "write a result as one HTML page: figures, tables, and where it came from",
        "resnet-lesion report resnet50.nc --out resnet50.html",
    )
    report.add_argument("file", type=Path, metavar="FILE.nc")
    report.add_argument("--out", type=Path, metavar="FILE.html", help="the file to write (default: FILE.html)")

    training = add_command(
        commands,
        "train",
        "train a network, all of its blocks or a random few in each mini-batch; continues where it was stopped",
        "resnet-lesion train cifar_preactresnet110 --data digits --epochs 30 --out plain/",
        "resnet-lesion train cifar_preactresnet110 --data torch/cifar10 --data-dir data/ --download \\\n"
        "      --modules-per-batch 23 --out effective/",
    )
    add_training_options(training)

    again = add_command(
        commands,
        "reproduce",
        "train the paper's networks and run all of its experiments; continues where it was stopped",
        "resnet-lesion reproduce --data digits --epochs 30 --out reproduction/",
        "resnet-lesion reproduce --data torch/cifar10 --data-dir data/ --download --amp --out cifar10/",
    )
    add_reproduction_options(again)

    models = add_command(
        commands,
        "models",
        "tell which timm models are covered, and why not where not; downloads nothing",
        "resnet-lesion models 'resnet*'",
        "resnet-lesion models densenet121",
    )
    models.add_argument("pattern", metavar="PATTERN", help="a name, or a pattern with * and ?; '*' takes minutes")
    models.add_argument("--workers", type=positive, metavar="N", help="processes (default: one for each core)")
    return whole


# what sets it in the environment: its number in malloc.h and a size, in bytes, that no tensor reaches
_MALLOPT = {"MALLOC_TRIM_THRESHOLD_": (-1, 2_000_000_000), "MALLOC_MMAP_THRESHOLD_": (-3, 1_000_000_000)}


_BAD_INPUT = (ValueError, TypeError, OSError, ImportError, AdapterError)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: Its arguments; None for those of the process.

    Returns:
        The exit code: 0, 2 for bad input, 130 when interrupted, 1 for any other error.
    """
    if argv is None:
        _keep_memory()
    arguments = sys.argv[1:] if argv is None else list(argv)
    args = parser().parse_args(arguments)
    # a line of the attribute "history", as the CF conventions describe it
    args.history = f"{now()}: {shlex.join(['resnet-lesion', *arguments])}"
    try:
        _COMMANDS[args.command](args)
    except KeyboardInterrupt:
        print("resnet-lesion: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        if args.debug:
            raise
        text = " ".join(_of_worker(str(error)).split()) or type(error).__name__
        if isinstance(error, _BAD_INPUT):
            print(f"resnet-lesion: {text}", file=sys.stderr)
            return 2
        print(f"resnet-lesion: {type(error).__name__}: {text} (--debug shows where)", file=sys.stderr)
        return 1
    return 0


def _keep_memory() -> None:
    """Let the process keep what a forward pass frees for the next one.

    glibc gives memory back and pages it in anew, which takes up to a quarter of a study's time on a CPU. This is for a
    process of our own; who uses the package from Python can set the variables that stand in the how-to page.
    """
    if sys.platform != "linux" or _MALLOPT.keys() & os.environ.keys():
        return
    with suppress(AttributeError, OSError):  # another C library has no such setting
        libc = ctypes.CDLL(None)
        for parameter, size in _MALLOPT.values():
            libc.mallopt(parameter, size)


def _of_worker(text: str) -> str:
    """Return what a loading process says went wrong, without its traceback."""
    return text.strip().splitlines()[-1].partition(": ")[2] if "Original Traceback" in text else text


_COMMANDS = {
    "demo": demo_command,
    "study": study_command,
    "merge": merge_command,
    "show": show_command,
    "plot": plot_command,
    "report": report_command,
    "train": train_command,
    "reproduce": reproduce_command,
    "models": models_command,
}
