"""The command ``resnet-lesion``: its subcommands put together, and its errors in one line each.

Nothing that takes long to import is imported before a subcommand runs.
"""

from __future__ import annotations

import argparse
import ctypes
import datetime
import io
import os
import select
import shlex
import signal
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version
from types import FrameType
from typing import Any

import shtab

from resnet_lesion.cli import demo, models, results, study, train
from resnet_lesion.cli.parser import Command, Formatter, Parser
from resnet_lesion.errors import AdapterError
from resnet_lesion.text import harmless

# the environment variable of each setting: its number in malloc.h, and a size in bytes that no tensor reaches
_MALLOPT = {"MALLOC_TRIM_THRESHOLD_": (-1, 2_000_000_000), "MALLOC_MMAP_THRESHOLD_": (-3, 1_000_000_000)}


_PIPE = 141  # as a shell reports a program that SIGPIPE ended


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
        The exit code: 0, 2 for bad input, 130 when interrupted, 141 when nobody reads its output any more, 1 for any
        other error.
    """
    words = sys.argv[1:] if argv is None else list(argv)
    try:
        args = parser().parse_args(words)
    except SystemExit as end:  # it has said what is wrong, or shown its help
        raise SystemExit(_written_out(int(end.code or 0))) from None
    except OSError as error:
        return _lost(error)
    if argv is None:
        _own_the_process(args)
    # a line of the attribute "history", as the CF conventions describe it
    began = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    args.history = harmless(f"{began}: {shlex.join(['resnet-lesion', *words])}")
    return _written_out(_run(args))


def _run(args: argparse.Namespace) -> int:
    try:
        args.run(args)
    except KeyboardInterrupt:
        _say(_how_to_continue(args))
        return 130
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _nobody_reads():
            return _PIPE
        if args.debug:
            raise
        said = [_of_worker(_words_of(error)), *getattr(error, "__notes__", ())]
        text = args.command.in_flags(" ".join(" ".join(said).split())) or type(error).__name__
        if isinstance(error, _BAD_INPUT):
            _say(text)
            return 2
        _say(f"{type(error).__name__}: {text} (--debug shows where)")
        return 1
    return 0


def _own_the_process(args: argparse.Namespace) -> None:
    """Set what is the whole process's, and so not to be set where another program calls the command."""
    _keep_memory()
    _end_imports_at_once(_how_to_continue(args))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a path may be in no encoding
    if not args.debug:
        warnings.showwarning = _in_one_line


def _say(text: str) -> None:
    with suppress(OSError, AttributeError):  # nobody may listen
        sys.stderr.write(f"resnet-lesion: {harmless(text)}\n")


def _in_one_line(message: Warning | str, *_: Any, **__: Any) -> None:
    _say(f"warning: {' '.join(str(message).split())}")


def _how_to_continue(args: argparse.Namespace) -> str:
    """Return what an interruption is answered with."""
    option = args.command.keeps
    if not option:
        return "interrupted"
    folder = getattr(args, option)
    if folder is None:
        return f"interrupted; nothing is kept. With --{option.replace('_', '-')} DIR, the same command would resume."
    return f"interrupted; the same command resumes from what {str(folder)!r} holds."


def _end_imports_at_once(message: str) -> None:
    """Let an interruption end the process while it imports.

    The exception that it raises elsewhere would there be swallowed, or become another, by whatever is being imported.
    """
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return  # whoever started the process does not want it to be interrupted
    own = os.getpid()

    def interrupt(number: int, frame: FrameType | None) -> None:
        if os.getpid() == own:  # a loading process has the same handler
            below = frame
            while below is not None:
                if below.f_code.co_filename.startswith("<frozen importlib"):
                    _say(message)
                    os._exit(130)
                below = below.f_back
        signal.default_int_handler(number, frame)

    signal.signal(signal.SIGINT, interrupt)


def _nobody_reads() -> bool:
    """Tell whether the other end of the standard output, or of the standard error, is closed."""
    if not hasattr(select, "poll"):  # Windows
        return True
    poll = select.poll()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # it is none of the system's
            poll.register(stream.fileno(), 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _written_out(code: int) -> int:
    """Write what was printed, and return the exit code: when the interpreter ends, it is too late to say what is wrong.

    Args:
        code: The exit code if nothing is wrong.
    """
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        return _lost(error)
    return code


def _lost(error: OSError) -> int:
    """Say that the output cannot be written, unless nobody reads it, and return the exit code."""
    with suppress(OSError, AttributeError):  # or the interpreter tries again when it ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if isinstance(error, BrokenPipeError):
        return _PIPE
    _say(f"the output cannot be written: {error.strerror}.")
    return 2


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


def _words_of(error: Exception) -> str:
    """Return what an error says: one of the system's without its number, and with its file."""
    if not isinstance(error, OSError) or not error.strerror:
        return str(error)
    return error.strerror if error.filename is None else f"{error.strerror}: {str(error.filename)!r}"


def _of_worker(text: str) -> str:
    """Return what a loading process says went wrong, without its traceback."""
    return text.strip().splitlines()[-1].partition(": ")[2] if "Original Traceback" in text else text
