"""The command's parsers: each error in one line, with its subcommand and the option that may have been meant."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from typing import Any, NoReturn

from resnet_lesion.checks import did_you_mean
from resnet_lesion.text import harmless


class Parser(argparse.ArgumentParser):
    """Say what is wrong in one line, as the command does for everything else."""

    def error(self, message: str) -> NoReturn:
        """Print the message and exit with code 2."""
        end = "" if message.endswith((".", "?")) else "."
        self.exit(2, f"resnet-lesion: {harmless(message)}{end} {self.prog} --help shows what it takes.\n")


class Command(Parser):
    """The parser of one subcommand.

    Attributes:
        keeps: The option that names the folder from which the same command resumes; empty if it never does.
    """

    keeps = ""

    def parse_known_args(  # pyright: ignore[reportIncompatibleMethodOverride]  # its overloads say the same
        self, args: Any = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        """Refuse an unknown argument here, where the known ones are, rather than in the whole command's parser.

        Refuse an empty one too: it is what a variable of the shell leaves that is not set, and a path to this folder.
        """
        words = list(args or ())
        for word, before in zip(words, [self.prog, *words], strict=False):
            if not word or re.fullmatch("--[a-z-]+=", word):
                self.error(f"the argument {word or f'after {before}'} is empty")
        found, unknown = super().parse_known_args(args, namespace)
        one = next((action.metavar for action in self._actions if not action.option_strings and not action.nargs), None)
        if one and unknown and not unknown[0].startswith("-"):
            self.error(f"expected one {one}, got also {' '.join(unknown)}")
        if unknown:
            fix = did_you_mean(unknown[0].partition("=")[0], self._option_string_actions)
            self.error(f"unrecognized arguments: {' '.join(unknown)}.{fix}")
        return found, unknown

    def in_flags(self, message: str) -> str:
        """Name an option where the library's message names a parameter.

        The library writes parameters as Python does, with an equals sign: ``data_dir=`` becomes ``--data-dir``,
        ``split='spare'`` becomes ``--split 'spare'``, and ``download=True`` becomes ``--download``.
        """
        for action in self._actions:
            if not action.option_strings:
                continue
            flag, parameter = action.option_strings[-1], rf"(?<![^\s(]){action.dest}="  # not within a path
            if action.nargs == 0:
                message = re.sub(rf"{parameter}{action.const}\b", flag, message)
            message = re.sub(rf"{parameter}(?=[\s,.:;)]|$)", flag, message)
            message = re.sub(parameter, f"{flag} ", message)
        return message


class Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keep the lines of the examples; say each option's default."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or isinstance(action.default, bool):
            return action.help
        return super()._get_help_string(action)


def add_command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], None], purpose: str, *examples: str
) -> Command:
    """Add a subcommand.

    Args:
        commands: What the whole command's ``add_subparsers`` returned.
        name: Its name.
        run: What it does with its arguments. What takes long to import is imported there, so that help and error
            messages appear at once.
        purpose: What it is for, in a sentence that begins in lower case and has no full stop.
        *examples: Lines of a shell.

    Returns:
        Its parser, for its options.
    """
    command: Command = commands.add_parser(
        name,
        help=purpose,
        description=f"{purpose[0].upper()}{purpose[1:]}.",
        epilog="\n  ".join(["example:" if len(examples) == 1 else "examples:", *examples]),
        formatter_class=Formatter,
    )
    command.add_argument("--debug", action="store_true", help="show the traceback of an error")
    command.set_defaults(run=run, command=command)
    return command
