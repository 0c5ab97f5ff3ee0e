"""The command ``resnet-lesion``: its subcommands put together, and its errors in one line each.

Nothing that takes long to import is imported before a subcommand runs.
"""

from __future__ import annotations

import argparse
import ctypes
import datetime
import os
import shlex
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version

import shtab

from resnet_lesion.cli import demo, models, results, study, train
from resnet_lesion.cli.parser import Command, Formatter, Parser
from resnet_lesion.errors import AdapterError

# the environment variable of each setting: its number in malloc.h, and a size in bytes that no tensor reaches
_MALLOPT = {"MALLOC_TRIM_THRESHOLD_": (-1, 2_000_000_000), "MALLOC_MMAP_THRESHOLD_": (-3, 1_000_000_000)}


_BAD_INPUT = (ValueError, TypeError, OSError, ImportError, AdapterError)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command; ``run`` is what the chosen subcommand does."""
    whole = Parser(
        prog="resnet-lesion",
        description="Which blocks and paths of a residual network matter? Lesion studies and path gradients.",
        epilog="examples:\n  resnet-lesion demo\n"
        "  resnet-lesion --print-completion bash > ~/.local/share/bash-completion/completions/resnet-lesion",
        formatter_class=Formatter,
    )
    whole.add_argument("--version", action="version", version=f"resnet-lesion {version('resnet-lesion')}")
    shtab.add_argument_to(whole)
    commands = whole.add_subparsers(parser_class=Command, required=True, metavar="COMMAND")
    for module in (demo, study, results, train, models):
        module.add(commands)
    return whole


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: Its arguments; None for those of the process.

    Returns:
        The exit code: 0, 2 for bad input, 130 when interrupted, 1 for any other error.
    """
    if argv is None:
        _keep_memory()
    words = sys.argv[1:] if argv is None else list(argv)
    args = parser().parse_args(words)
    # a line of the attribute "history", as the CF conventions describe it
    began = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    args.history = f"{began}: {shlex.join(['resnet-lesion', *words])}"
    try:
        args.run(args)
    except KeyboardInterrupt:
        print("resnet-lesion: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        if args.debug:
            raise
        said = [_of_worker(str(error)), *getattr(error, "__notes__", ())]
        text = args.command.in_flags(" ".join(" ".join(said).split())) or type(error).__name__
        if isinstance(error, _BAD_INPUT):
            print(f"resnet-lesion: {text}", file=sys.stderr)
            return 2
        print(f"resnet-lesion: {type(error).__name__}: {text} (--debug shows where)", file=sys.stderr)
        return 1
    return 0


def _keep_memory() -> None:
    """Let the process keep what a forward pass frees for the next one.

    glibc returns memory to the system and pages it in again, which takes up to a quarter of a study's time on a CPU.
    This is for a process of our own; those who use the package from Python can set the variables on the how-to page.
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
