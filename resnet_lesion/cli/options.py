"""The options that several subcommands share, and what becomes of their values."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any, NoReturn

import torch

from resnet_lesion.checks import did_you_mean
from resnet_lesion.loading.images import Source


def add_command(commands: Any, name: str, purpose: str, *examples: str) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(
        name,
        help=purpose,
        description=f"{purpose[0].upper()}{purpose[1:]}.",
        epilog="\n  ".join(["example:" if len(examples) == 1 else "examples:", *examples]),
        formatter_class=Formatter,
    )
    command.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return command


class Parser(argparse.ArgumentParser):
    """Say what is wrong in one line, as the command does of everything else."""

    def error(self, message: str) -> NoReturn:
        end = "" if message.endswith((".", "?")) else "."
        self.exit(2, f"resnet-lesion: {message}{end} {self.prog} --help shows what it takes.\n")


class Command(Parser):
    """Name the subcommand that does not know an argument, and the argument that may have been meant."""

    def parse_known_args(  # pyright: ignore[reportIncompatibleMethodOverride]  # its overloads say the same
        self, args: Any = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            fix = did_you_mean(unknown[0].partition("=")[0], self._option_string_actions)
            self.error(f"unrecognized arguments: {' '.join(unknown)}.{fix}")
        return found, unknown


class Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keep the lines of the examples; say each option's default."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.default is False:
            return action.help
        return super()._get_help_string(action)


def add_data_options(run: argparse.ArgumentParser) -> Any:
    workers = min(4, os.cpu_count() or 1)
    data = run.add_argument_group("data")
    data.add_argument(
        "--data",
        required=True,
        help="a folder or zip file with a subfolder per class, 'digits', or a data set as timm names it: "
        "torch/cifar10, hfds/NAME",
    )
    data.add_argument("--data-dir", type=Path, metavar="DIR", help="where a named data set is, or is downloaded to")
    data.add_argument("--download", action="store_true", help="download a torchvision data set that is not there")
    data.add_argument("--class-map", type=Path, metavar="FILE", help="folder names in the order of the model's outputs")
    data.add_argument(
        "--image-size", type=positive, metavar="N", help="scale images to N pixels (default: the model's)"
    )
    data.add_argument(
        "--skip-unreadable", action="store_true", help="leave out images that cannot be read, and count them"
    )
    data.add_argument("--batch-size", type=positive, default=64, metavar="N", help="images in a batch")
    data.add_argument("--workers", type=not_negative, default=workers, metavar="N", help="loading processes")
    return data


def add_device_options(run: argparse.ArgumentParser) -> Any:
    how = run.add_argument_group("how")
    how.add_argument("--seed", type=not_negative, default=0, metavar="N", help="seed of everything random")
    how.add_argument("--device", help="cpu, cuda or cuda:1 (default: cuda if there is one, else cpu)")
    how.add_argument("--amp", action="store_true", help="autocast to bfloat16 (float16 where that is not supported)")
    how.add_argument("--channels-last", action="store_true", help="channels-last memory format")
    return how


def add_amounts(how: Any) -> None:
    how.add_argument(
        "--n-draws", type=positive, default=10, metavar="N", help="random deletions and reorderings of each size"
    )
    how.add_argument("--n-paths", type=positive, default=100, metavar="N", help="random paths of each length")
    how.add_argument(
        "--n-gradient-images", type=positive, default=128, metavar="N", help="images on which gradients are measured"
    )


def add_source_options(run: argparse.ArgumentParser) -> Any:
    data = add_data_options(run)
    data.add_argument("--split", default="train", help="which split to train on")
    data.add_argument("--validation-split", default="validation", metavar="SPLIT", help="which to evaluate on")
    data.add_argument("--validation-data", metavar="DATA", help="other data to evaluate on")
    return data


def positive(text: str) -> int:
    return _at_least(1, text)


def not_negative(text: str) -> int:
    return _at_least(0, text)


def _at_least(low: int, text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = low - 1
    if value < low:
        raise argparse.ArgumentTypeError(f"expected a whole number >= {low}, got {text!r}")
    return value


def check_out(path: Path) -> None:
    """Refuse what cannot be written to before the work is done."""
    if not path.parent.is_dir():
        raise FileNotFoundError(f"the folder {str(path.parent)!r} of --out does not exist; create it first.")
    if path.is_dir():
        raise IsADirectoryError(f"expected a file for --out, got the folder {str(path)!r}.")


def check_folder(path: Path) -> None:
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(f"expected a folder to write to, got the file {str(path)!r}.")


def as_source(args: argparse.Namespace) -> Source:
    return Source(
        data=args.data,
        validation_data=args.validation_data,
        split=args.split,
        validation_split=args.validation_split,
        data_dir=args.data_dir,
        download=args.download,
        class_map=args.class_map,
        batch_size=args.batch_size,
        workers=args.workers,
        image_size=args.image_size,
        skip_unreadable=args.skip_unreadable,
    )


def as_device(name: str | None) -> torch.device:
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"expected --device as cpu, cuda or cuda:1, got {name!r}.") from error
    if device.type == "mps":
        raise ValueError("--device mps has no float64, in which results are added up. Try --device cpu.")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"--device {name} cannot be used here: {error!s:.120}. Try --device cpu.") from error
    return device
