"""Time resnet-lesion against what a user would write instead; see README.md in this folder."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from . import profile_deletion, profile_engine, run, tables


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the arguments say; return 1 if anything failed, else 0."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, epilog="OMP_NUM_THREADS sets the number of threads."
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for module in (run, tables, profile_deletion, profile_engine):
        module.add(commands)
    args = parser.parse_args(arguments)
    return int(args.command(args))


if __name__ == "__main__":
    sys.exit(main())
