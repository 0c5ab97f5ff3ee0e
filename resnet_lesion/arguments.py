"""The arguments of the command ``resnet-lesion`` and its subcommands, with help that teaches by example."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any, NoReturn

import shtab

from resnet_lesion.branch import did_you_mean
from resnet_lesion.shards import Shard, as_shard
from resnet_lesion.training import Recipe


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command; ``command`` is the name of the subcommand that was chosen."""
    whole = _Parser(
        prog="resnet-lesion",
        description="Which blocks and paths of a residual network matter? Lesion studies and path gradients.",
        epilog="examples:\n  resnet-lesion demo\n"
        "  resnet-lesion --print-completion bash > ~/.local/share/bash-completion/completions/resnet-lesion",
        formatter_class=_Formatter,
    )
    shtab.add_argument_to(whole)
    commands = whole.add_subparsers(parser_class=_Command, required=True, metavar="COMMAND", dest="command")

    demo = _command(
        commands,
        "demo",
        "study the embedded ResNet-110 on handwritten digits, offline, within two minutes",
        "resnet-lesion demo --out resnet-lesion-demo",
    )
    demo.add_argument("--out", type=Path, default=Path("resnet-lesion-demo"), metavar="DIR", help="where to write")
    demo.add_argument(
        "--n-draws", type=_positive, default=5, metavar="N", help="random deletions and reorderings of each size"
    )
    demo.add_argument("--num-samples", type=_positive, metavar="N", help="use a random subset of the 540 images")
    demo.add_argument("--seed", type=_not_negative, default=0, metavar="N", help="seed of everything random")

    run = _command(
        commands,
        "study",
        "run every analysis of a timm model and save one netCDF file",
        "resnet-lesion study resnet50.a1_in1k --data imagenet/ --num-samples 2000 --out resnet50.nc",
        "resnet-lesion study resnet18 --checkpoint mine.safetensors --num-classes 10 \\\n"
        "      --data torch/cifar10 --data-dir data/ --download --out mine.nc",
        "resnet-lesion study resnet50.a1_in1k --data imagenet/ --shard 3/8 --run-folder run/ --out shard-3.nc",
    )
    _add_study_options(run)

    together = _command(
        commands,
        "merge",
        "put the results of all shards of a study together",
        "resnet-lesion merge shard-*.nc --out resnet50.nc",
    )
    together.add_argument("files", type=Path, nargs="+", metavar="FILE.nc", help="what study wrote for each shard")
    together.add_argument("--out", type=Path, required=True, metavar="FILE.nc", help="the file to write")

    show = _command(
        commands,
        "show",
        "print a readable summary of a result",
        "resnet-lesion show resnet50.nc",
        "resnet-lesion show resnet50.nc --json | jq .groups.deletion.data_vars.error.data",
    )
    show.add_argument("file", type=Path, metavar="FILE.nc")
    show.add_argument("--json", action="store_true", help="print all of it as JSON")

    plot = _command(
        commands,
        "plot",
        "draw all figures of a result as PNG files",
        "resnet-lesion plot resnet50.nc --out figures/",
    )
    plot.add_argument("file", type=Path, metavar="FILE.nc")
    plot.add_argument("--out", type=Path, metavar="DIR", help="where to write (default: FILE-figures)")

    report = _command(
        commands,
        "report",
        "write a result as one HTML page: figures, tables, and where it came from",
        "resnet-lesion report resnet50.nc --out resnet50.html",
    )
    report.add_argument("file", type=Path, metavar="FILE.nc")
    report.add_argument("--out", type=Path, metavar="FILE.html", help="the file to write (default: FILE.html)")

    training = _command(
        commands,
        "train",
        "train a network, all of its blocks or a random few in each mini-batch; continues where it was stopped",
        "resnet-lesion train cifar_preactresnet110 --data digits --epochs 30 --out plain/",
        "resnet-lesion train cifar_preactresnet110 --data torch/cifar10 --data-dir data/ --download \\\n"
        "      --modules-per-batch 23 --out effective/",
    )
    _add_training_options(training)

    again = _command(
        commands,
        "reproduce",
        "train the paper's networks and run all of its experiments; continues where it was stopped",
        "resnet-lesion reproduce --data digits --epochs 30 --out reproduction/",
        "resnet-lesion reproduce --data torch/cifar10 --data-dir data/ --download --amp --out cifar10/",
    )
    _add_reproduction_options(again)

    models = _command(
        commands,
        "models",
        "tell which timm models are covered, and why not where not; downloads nothing",
        "resnet-lesion models 'resnet*'",
        "resnet-lesion models densenet121",
    )
    models.add_argument("pattern", metavar="PATTERN", help="a name, or a pattern with * and ?; '*' takes minutes")
    models.add_argument("--workers", type=_positive, metavar="N", help="processes (default: one for each core)")
    return whole


def _command(commands: Any, name: str, purpose: str, *examples: str) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(
        name,
        help=purpose,
        description=f"{purpose[0].upper()}{purpose[1:]}.",
        epilog="\n  ".join(["example:" if len(examples) == 1 else "examples:", *examples]),
        formatter_class=_Formatter,
    )
    command.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return command


class _Parser(argparse.ArgumentParser):
    """Say what is wrong in one line, as the command does of everything else."""

    def error(self, message: str) -> NoReturn:
        end = "" if message.endswith((".", "?")) else "."
        self.exit(2, f"resnet-lesion: {message}{end} {self.prog} --help shows what it takes.\n")


class _Command(_Parser):
    """Name the subcommand that does not know an argument, and the argument that may have been meant."""

    def parse_known_args(  # pyright: ignore[reportIncompatibleMethodOverride]  # its overloads say the same
        self, args: Any = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            fix = did_you_mean(unknown[0].partition("=")[0], self._option_string_actions)
            self.error(f"unrecognized arguments: {' '.join(unknown)}.{fix}")
        return found, unknown


class _Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keep the lines of the examples; say each option's default."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.default is False:
            return action.help
        return super()._get_help_string(action)


def _add_study_options(run: argparse.ArgumentParser) -> None:
    run.add_argument("model", metavar="MODEL", help="a name that timm.create_model takes; local-dir:PATH too")
    run.add_argument("--out", type=Path, required=True, metavar="FILE.nc", help="the file to write")
    weights = run.add_argument_group("weights (default: timm's pretrained ones)")
    weights.add_argument("--checkpoint", type=Path, metavar="FILE", help="load these: safetensors, or a state dict")
    weights.add_argument("--no-pretrained", action="store_true", help="random weights")
    weights.add_argument("--num-classes", type=_positive, metavar="N", help="number of outputs, if not the model's own")
    data = _add_data_options(run)
    data.add_argument("--split", default="validation", help="which split")
    data.add_argument("--num-samples", type=_positive, metavar="N", help="use a random subset of the images")
    how = _add_device_options(run)
    _add_amounts(how)
    long = run.add_argument_group("long runs")
    long.add_argument(
        "--run-folder", type=Path, metavar="DIR", help="keep there what is done; the same command goes on from it"
    )
    long.add_argument(
        "--shard",
        type=_shard,
        metavar="I/N",
        help="do the I-th of N parts of the images, counted from 0, for merge; "
        "'env' for what torchrun or a Slurm array says",
    )


def _add_data_options(run: argparse.ArgumentParser) -> Any:
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
        "--image-size", type=_positive, metavar="N", help="scale images to N pixels (default: the model's)"
    )
    data.add_argument(
        "--skip-unreadable", action="store_true", help="leave out images that cannot be read, and count them"
    )
    data.add_argument("--batch-size", type=_positive, default=64, metavar="N", help="images in a batch")
    data.add_argument("--workers", type=_not_negative, default=workers, metavar="N", help="loading processes")
    return data


def _add_device_options(run: argparse.ArgumentParser) -> Any:
    how = run.add_argument_group("how")
    how.add_argument("--seed", type=_not_negative, default=0, metavar="N", help="seed of everything random")
    how.add_argument("--device", help="cpu, cuda or cuda:1 (default: cuda if there is one, else cpu)")
    how.add_argument("--amp", action="store_true", help="autocast to bfloat16 (float16 where that is not supported)")
    how.add_argument("--channels-last", action="store_true", help="channels-last memory format")
    return how


def _add_amounts(how: Any) -> None:
    how.add_argument(
        "--n-draws", type=_positive, default=10, metavar="N", help="random deletions and reorderings of each size"
    )
    how.add_argument("--n-paths", type=_positive, default=100, metavar="N", help="random paths of each length")
    how.add_argument(
        "--n-gradient-images", type=_positive, default=128, metavar="N", help="images on which gradients are measured"
    )


def _add_source_options(run: argparse.ArgumentParser) -> Any:
    data = _add_data_options(run)
    data.add_argument("--split", default="train", help="which split to train on")
    data.add_argument("--validation-split", default="validation", metavar="SPLIT", help="which to evaluate on")
    data.add_argument("--validation-data", metavar="DATA", help="other data to evaluate on")
    return data


def _add_reproduction_options(run: argparse.ArgumentParser) -> None:
    run.add_argument("--out", type=Path, required=True, metavar="DIR", help="where to write; a run there is continued")
    data = _add_source_options(run)
    data.add_argument(
        "--num-samples", type=_positive, metavar="N", help="run the lesions on a random subset of the images"
    )
    how = _add_device_options(run)
    how.add_argument("--epochs", type=_positive, default=Recipe().epochs, metavar="N", help="of each training")
    how.add_argument("--n-seeds", type=_positive, default=3, metavar="N", help="trainings of the networks compared")
    _add_amounts(how)
    how.add_argument("--parallel", type=_positive, metavar="N", help="trainings at once (default: one for each core)")


def _add_training_options(run: argparse.ArgumentParser) -> None:
    recipe = Recipe()
    run.add_argument("model", metavar="MODEL", help="a timm ResNet, or one of the paper's: cifar_preactresnet110, ...")
    run.add_argument("--out", type=Path, required=True, metavar="DIR", help="where to write; a run there is continued")
    data = _add_source_options(run)
    data.add_argument(
        "--num-classes", type=_positive, metavar="N", help="number of outputs (default: the number of classes)"
    )
    paths = run.add_argument_group("which blocks are trained")
    paths.add_argument(
        "--modules-per-batch",
        type=_positive,
        metavar="K",
        help="train K random blocks in each mini-batch; of the others only the shortcut is computed",
    )
    paths.add_argument(
        "--stochastic-depth",
        type=float,
        metavar="P_L",
        help="drop branches of single images; those of the last block survive with probability P_L, earlier ones more",
    )
    how = _add_device_options(run)
    how.add_argument("--epochs", type=_positive, default=recipe.epochs, metavar="N", help="passes through the data")
    how.add_argument("--learning-rate", type=float, default=recipe.learning_rate, metavar="X", help="the highest")
    how.add_argument("--warmup-epochs", type=_not_negative, default=0, metavar="N", help="epochs over which it rises")
    how.add_argument("--optimizer", default=recipe.optimizer, help="as timm names it")
    how.add_argument("--scheduler", default=recipe.scheduler, help="as timm names it")
    how.add_argument("--weight-decay", type=float, default=recipe.weight_decay, metavar="X", help="weight decay")
    how.add_argument("--clip-gradient", type=float, metavar="X", help="largest norm of the gradient")
    how.add_argument("--ema-decay", type=float, metavar="X", help="average the weights with this decay")


def _shard(text: str) -> Shard:
    if text == "env":
        try:
            return as_shard("env")
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error).replace("shard=(i, N)", "I/N")) from error
    try:
        i, n = text.split("/")
        return as_shard((int(i), int(n)))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected I/N with 0 <= I < N, or env, got {text!r}") from error


def _positive(text: str) -> int:
    return _at_least(1, text)


def _not_negative(text: str) -> int:
    return _at_least(0, text)


def _at_least(low: int, text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = low - 1
    if value < low:
        raise argparse.ArgumentTypeError(f"expected a whole number >= {low}, got {text!r}")
    return value
