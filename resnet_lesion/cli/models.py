"""``resnet-lesion models``."""

from __future__ import annotations

import argparse
from typing import Any

from resnet_lesion.cli.options import positive
from resnet_lesion.cli.parser import add_command


def add(commands: Any) -> None:
    """Add the subcommand."""
    command = add_command(
        commands,
        "models",
        run,
        "tell which timm models are covered, and why the others are not; downloads nothing",
        "resnet-lesion models 'resnet*'",
        "resnet-lesion models densenet121",
    )
    command.add_argument("pattern", metavar="PATTERN", help="a name, or a pattern with * and ?; '*' takes minutes")
    command.add_argument("--workers", type=positive, metavar="N", help="processes (default: one for each core)")


def run(args: argparse.Namespace) -> None:
    """Print a line for each model as soon as it is known, and how many are covered."""
    from resnet_lesion.analyzers.support import supported_models

    n_covered = n_models = 0
    for answer in supported_models(args.pattern, args.workers):
        n_models, n_covered = n_models + 1, n_covered + answer.covered
        if answer.covered:
            paths = "" if answer.path_gradients else f"; no path gradients: {answer.reason}"
            print(f"{answer.name}: {answer.n_blocks} blocks ({', '.join(answer.block_classes)}){paths}", flush=True)
        else:
            print(f"{answer.name}: not covered: {answer.reason}", flush=True)
    print(f"{n_covered} of {n_models} covered.")
