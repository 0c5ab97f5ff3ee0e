"""The command ``resnet-lesion``: demo, study, show, plot, train, reproduce, models."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import xarray as xr
from torch import nn
from torch.utils.data import Dataset, IterableDataset

from resnet_lesion import storage
from resnet_lesion.branch import did_you_mean
from resnet_lesion.demo import demo_findings, run_demo
from resnet_lesion.errors import AdapterError
from resnet_lesion.images import Source, choose_samples, class_names, evaluation_loader, open_images, subset_loader
from resnet_lesion.plots import save_figures
from resnet_lesion.reproduction import reproduce
from resnet_lesion.study import study
from resnet_lesion.summary import groups, summarise, summarise_claims
from resnet_lesion.support import supported_models
from resnet_lesion.training import Recipe, train
from resnet_lesion.weights import save_weights, untrained

if TYPE_CHECKING:
    from collections.abc import Iterable

_BAD_INPUT = (ValueError, TypeError, OSError, ImportError, AdapterError)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: Its arguments; None for those of the process.

    Returns:
        The exit code: 0, 2 for bad input, 130 when interrupted, 1 for any other error.
    """
    arguments = sys.argv[1:] if argv is None else list(argv)
    args = _parser().parse_args(arguments)
    args.command_line = shlex.join(["resnet-lesion", *arguments])
    try:
        args.run(args)
    except KeyboardInterrupt:
        print("resnet-lesion: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        if args.debug:
            raise
        text = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, _BAD_INPUT):
            print(f"resnet-lesion: {text}", file=sys.stderr)
            return 2
        print(f"resnet-lesion: {type(error).__name__}: {text} (--debug shows where)", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="resnet-lesion",
        description="Which blocks and paths of a residual network matter? Lesion studies and path gradients.",
        epilog="example: resnet-lesion demo",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    demo = _command(
        commands,
        "demo",
        _demo,
        "study the embedded ResNet-110 on handwritten digits, offline, within two minutes",
        "resnet-lesion demo --out resnet-lesion-demo",
    )
    demo.add_argument("--out", type=Path, default=Path("resnet-lesion-demo"), metavar="DIR", help="where to write")
    demo.add_argument("--n-draws", type=_positive, default=5, metavar="N", help="random repetitions of each kind")
    demo.add_argument("--num-samples", type=_positive, metavar="N", help="use a random subset of the 540 images")
    demo.add_argument("--seed", type=_not_negative, default=0, metavar="N", help="seed of everything random")

    run = _command(
        commands,
        "study",
        _study,
        "run every analysis of a timm model and save one netCDF file",
        "resnet-lesion study resnet50.a1_in1k --data imagenet/ --num-samples 2000 --out resnet50.nc",
        "resnet-lesion study resnet18 --checkpoint mine.safetensors --num-classes 10 \\\n"
        "      --data torch/cifar10 --data-dir data/ --download --out mine.nc",
    )
    _add_study_options(run)

    show = _command(commands, "show", _show, "print a readable summary of a result", "resnet-lesion show resnet50.nc")
    show.add_argument("file", type=Path, metavar="FILE.nc")

    plot = _command(
        commands,
        "plot",
        _plot,
        "draw all figures of a result as PNG files",
        "resnet-lesion plot resnet50.nc --out figures/",
    )
    plot.add_argument("file", type=Path, metavar="FILE.nc")
    plot.add_argument("--out", type=Path, metavar="DIR", help="where to write (default: FILE-figures)")

    training = _command(
        commands,
        "train",
        _train,
        "train a network, all of its blocks or a random few in each mini-batch; continues where it was stopped",
        "resnet-lesion train cifar_preactresnet110 --data digits --epochs 30 --out plain/",
        "resnet-lesion train cifar_preactresnet110 --data torch/cifar10 --data-dir data/ --download \\\n"
        "      --modules-per-batch 23 --out effective/",
    )
    _add_training_options(training)

    again = _command(
        commands,
        "reproduce",
        _reproduce,
        "train the paper's networks and run all of its experiments; continues where it was stopped",
        "resnet-lesion reproduce --data digits --epochs 30 --out reproduction/",
        "resnet-lesion reproduce --data torch/cifar10 --data-dir data/ --download --amp --out cifar10/",
    )
    _add_reproduction_options(again)

    models = _command(
        commands,
        "models",
        _models,
        "tell which timm models are covered, and why not where not; downloads nothing",
        "resnet-lesion models 'resnet*'",
        "resnet-lesion models densenet121",
    )
    models.add_argument("pattern", metavar="PATTERN", help="a name, or a pattern with * and ?; '*' takes minutes")
    models.add_argument("--workers", type=_positive, metavar="N", help="processes (default: one for each core)")
    return parser


def _command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], None], purpose: str, *examples: str
) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(
        name,
        help=purpose,
        description=f"{purpose[0].upper()}{purpose[1:]}.",
        epilog="\n  ".join(["example:" if len(examples) == 1 else "examples:", *examples]),
        formatter_class=_Formatter,
    )
    command.add_argument("--debug", action="store_true", help="show the traceback of an error")
    command.set_defaults(run=run)
    return command


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
    how.add_argument("--n-draws", type=_positive, default=10, metavar="N", help="random repetitions of each kind")


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
        "--skip-unreadable", action="store_true", help="leave out images that cannot be read, and count them"
    )
    data.add_argument("--batch-size", type=_positive, default=64, metavar="N", help="images in a batch")
    data.add_argument("--workers", type=_not_negative, default=workers, metavar="N", help="loading processes")
    return data


def _add_device_options(run: argparse.ArgumentParser) -> Any:
    how = run.add_argument_group("how")
    how.add_argument("--seed", type=_not_negative, default=0, metavar="N", help="seed of everything random")
    how.add_argument("--device", help="cpu, cuda, cuda:1, mps (default: cuda if there is one, else cpu)")
    how.add_argument("--amp", action="store_true", help="autocast to bfloat16 (float16 where that is not supported)")
    how.add_argument("--channels-last", action="store_true", help="channels-last memory format")
    return how


def _add_source_options(run: argparse.ArgumentParser) -> Any:
    data = _add_data_options(run)
    data.add_argument("--split", default="train", help="which split to train on")
    data.add_argument("--validation-split", default="validation", metavar="SPLIT", help="which to evaluate on")
    data.add_argument("--validation-data", metavar="DATA", help="other data to evaluate on")
    data.add_argument(
        "--image-size", type=_positive, metavar="N", help="scale images to N pixels (default: the model's)"
    )
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
    how.add_argument("--n-draws", type=_positive, default=10, metavar="N", help="random repetitions of each kind")
    how.add_argument("--n-paths", type=_positive, default=100, metavar="N", help="random paths of each length")
    how.add_argument(
        "--n-gradient-images", type=_positive, default=128, metavar="N", help="whose gradients are measured"
    )
    how.add_argument("--parallel", type=_positive, metavar="N", help="trainings at once (default: one for each core)")


def _add_training_options(run: argparse.ArgumentParser) -> None:
    recipe = Recipe()
    run.add_argument("model", metavar="MODEL", help="a timm ResNet, or one of the paper's: cifar_preactresnet110, ...")
    run.add_argument("--out", type=Path, required=True, metavar="DIR", help="where to write; a run there is continued")
    data = _add_source_options(run)
    data.add_argument("--num-classes", type=_positive, metavar="N", help="number of outputs (default: of the classes)")
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
    how.add_argument("--warmup-epochs", type=_not_negative, default=0, metavar="N", help="epochs in which it rises")
    how.add_argument("--optimizer", default=recipe.optimizer, help="as timm names it")
    how.add_argument("--scheduler", default=recipe.scheduler, help="as timm names it")
    how.add_argument("--weight-decay", type=float, default=recipe.weight_decay, metavar="X", help="weight decay")
    how.add_argument("--clip-gradient", type=float, metavar="X", help="largest norm of the gradient")
    how.add_argument("--ema-decay", type=float, metavar="X", help="average the weights with this decay")


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


def _demo(args: argparse.Namespace) -> None:
    if args.out.exists() and not args.out.is_dir():
        raise NotADirectoryError(f"expected a folder to write to, got the file {str(args.out)!r}.")
    tree = run_demo(seed=args.seed, n_draws=args.n_draws, num_samples=args.num_samples)
    _describe(tree, "scikit-learn's digits, test split", args.command_line)
    args.out.mkdir(parents=True, exist_ok=True)
    storage.save(tree, args.out / "study.nc")
    paths = save_figures(tree, args.out)
    for line in demo_findings(tree):
        print(line)
    file = shlex.quote(str(args.out / "study.nc"))
    print(f"Written to {args.out}: study.nc and {len(paths)} figures (*.png). Next: resnet-lesion show {file}")


def _study(args: argparse.Namespace) -> None:
    if not args.out.parent.is_dir():
        raise FileNotFoundError(f"the folder {str(args.out.parent)!r} of --out does not exist; create it first.")
    if args.out.is_dir():
        raise IsADirectoryError(f"expected a file for --out, got the folder {str(args.out)!r}.")
    device = _device(args.device)
    data = open_images(
        args.data,
        args.split,
        data_dir=args.data_dir,
        download=args.download,
        class_map=args.class_map,
        skip_unreadable=args.skip_unreadable,
    )  # before the model, whose weights may have to be downloaded
    model = _model(args).eval().to(device)
    if args.channels_last:
        model = model.to(memory_format=torch.channels_last)
    _check_classes(data, int(getattr(model, "num_classes", 0)), args)
    loader, description = _loader(args, data, model, device)
    with _autocast(device, args.amp):
        tree = study(model, loader, n_draws=args.n_draws, seed=args.seed)
    _describe(tree, description, args.command_line)
    storage.save(tree, args.out)
    print(summarise(tree))
    print(f"\nWritten to {args.out}. Next: resnet-lesion plot {shlex.quote(str(args.out))}")


def _show(args: argparse.Namespace) -> None:
    print(summarise(storage.open(args.file)))


def _plot(args: argparse.Namespace) -> None:
    result = storage.open(args.file)
    for path in save_figures(result, args.out or args.file.with_name(f"{args.file.stem}-figures")):
        print(path)


def _describe(tree: xr.DataTree, data: str, command_line: str) -> None:
    """Say in the result which data these were, which the analyzers cannot know, and what was run."""
    created = ""
    for group, dataset in groups(tree):
        node = tree[group]
        if "data" in dataset.attrs:
            node.attrs["data"] = f"{dataset.attrs['data'].partition(' from ')[0]} from {data}"
        created = dataset.attrs.get("created", created)
    tree.attrs["history"] = f"{created}: {command_line}"


def _train(args: argparse.Namespace) -> None:
    device = _device(args.device)
    source = _source(args)
    recipe = Recipe(
        epochs=args.epochs,
        learning_rate=args.learning_rate,
        optimizer=args.optimizer,
        scheduler=args.scheduler,
        weight_decay=args.weight_decay,
        warmup_epochs=args.warmup_epochs,
        clip_gradient=args.clip_gradient,
        ema_decay=args.ema_decay,
        modules_per_batch=args.modules_per_batch,
        autocast=args.amp,
        seed=args.seed,
    )
    n_classes = args.num_classes or source.n_classes
    model = untrained(
        args.model,
        source.training_images,
        n_classes,
        seed=args.seed,
        stochastic_depth=args.stochastic_depth,
        image_size=source.image_size,
    ).to(device)
    if args.channels_last:
        model = model.to(memory_format=torch.channels_last)
    args.out.mkdir(parents=True, exist_ok=True)
    log = train(
        model,
        source.training(model, device),
        recipe,
        validation=source.evaluation(model, device),
        checkpoint=args.out / "checkpoint.pt",
    )
    log.attrs |= {"data": f"{args.data}, split {args.split}", "history": f"{log.attrs['created']}: {args.command_line}"}
    storage.save(log, args.out / "training.nc")
    save_weights(model, args.out)
    print(
        f"Error on {source}: {100 * log.validation_error.values[-1]:.2f} %. Written to {args.out}: "
        f"model.safetensors, config.json, training.nc. "
        f"Next: resnet-lesion study local-dir:{shlex.quote(str(args.out))} --data ... --out study.nc"
    )


def _reproduce(args: argparse.Namespace) -> None:
    args.out.mkdir(parents=True, exist_ok=True)
    tree = reproduce(
        _source(args),
        args.out,
        recipe=Recipe(epochs=args.epochs, warmup_epochs=min(2, args.epochs - 1), autocast=args.amp, seed=args.seed),
        n_seeds=args.n_seeds,
        n_draws=args.n_draws,
        n_paths=args.n_paths,
        n_gradient_images=args.n_gradient_images,
        num_samples=args.num_samples,
        channels_last=args.channels_last,
        device=_device(args.device),
        workers=args.parallel,
    )
    tree.attrs["history"] = args.command_line
    storage.save(tree, args.out / "reproduction.nc")
    paths = save_figures(tree, args.out)
    print(summarise_claims(tree["claims"].to_dataset()))
    print(f"\nWritten to {args.out}: reproduction.nc and {len(paths)} figures (*.png).")


def _source(args: argparse.Namespace) -> Source:
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


def _models(args: argparse.Namespace) -> None:
    n_covered = n_models = 0
    for answer in supported_models(args.pattern, args.workers):
        n_models, n_covered = n_models + 1, n_covered + answer.covered
        if answer.covered:
            paths = "" if answer.path_gradients else f"; no path gradients: {answer.reason}"
            print(f"{answer.name}: {answer.n_blocks} blocks ({', '.join(answer.block_classes)}){paths}", flush=True)
        else:
            print(f"{answer.name}: not covered: {answer.reason}", flush=True)
    print(f"{n_covered} of {n_models} covered.")


def _device(name: str | None) -> torch.device:
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"expected --device as cpu, cuda, cuda:1 or mps, got {name!r}.") from error
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"--device {name} cannot be used here: {error!s:.120}. Try --device cpu.") from error
    return device


def _autocast(device: torch.device, enabled: bool) -> AbstractContextManager[object]:
    if not enabled:
        return nullcontext()
    bfloat16 = device.type != "cuda" or torch.cuda.is_bf16_supported()
    return torch.autocast(device.type, torch.bfloat16 if bfloat16 else torch.float16)


def _model(args: argparse.Namespace) -> nn.Module:
    import timm

    if args.checkpoint is not None and args.no_pretrained:
        raise ValueError("expected --checkpoint or --no-pretrained, got both.")
    if args.checkpoint is not None and not args.checkpoint.is_file():
        raise FileNotFoundError(f"there is no file {str(args.checkpoint)!r} for --checkpoint.")
    if args.num_classes is not None and args.checkpoint is None and not args.no_pretrained:
        raise ValueError(
            "--num-classes replaces the trained classifier by a random one: pass --checkpoint FILE with it."
        )
    name, _, tag = args.model.partition(".")
    if ":" not in args.model and not timm.is_model(name):
        known = did_you_mean(name, timm.list_models()) or " timm.list_models('*resnet*') lists those there are."
        raise ValueError(f"timm has no model {name!r}.{known}")
    pretrained = args.checkpoint is None and not args.no_pretrained
    try:
        model = timm.create_model(args.model, pretrained=pretrained, num_classes=args.num_classes)
    except RuntimeError as error:
        tags = [full.partition(".")[2] for full in timm.list_pretrained(f"{name}.*")]
        fix = f"Known tags: {', '.join(tags)}. " if tag and tags else ""
        raise ValueError(
            f"{str(error).rstrip('.')}. {fix}Use --checkpoint FILE or --no-pretrained for other weights."
        ) from error
    except OSError as error:
        if not pretrained or args.model.startswith("local-dir:"):
            raise
        raise ValueError(
            f"the pretrained weights of {args.model} could not be loaded: {error} "
            "Use --checkpoint FILE for weights that are here, or --no-pretrained for random ones."
        ) from error
    if args.checkpoint is not None:
        _load(model, args.checkpoint)
    elif args.no_pretrained:
        print("note: with random weights the results say nothing about a trained network", file=sys.stderr)
    return model


def _load(model: nn.Module, checkpoint: Path) -> None:
    from timm.models import load_checkpoint

    try:
        load_checkpoint(model, str(checkpoint), weights_only=True)
    except Exception as error:  # whatever an unreadable or ill-fitting file makes torch, safetensors and pickle raise
        cause = f"it does not hold plain weights, and nothing else is unpickled ({type(error).__name__})."
        if "state_dict" in str(error):
            cause = f"{' '.join(str(error).split()):.250}... Is --num-classes right?"
        raise ValueError(
            f"expected a state dict of this model, as safetensors or saved by torch.save, "
            f"got {str(checkpoint)!r}: {cause}"
        ) from error


def _loader(args: argparse.Namespace, whole: Any, model: nn.Module, device: torch.device) -> tuple[Iterable[Any], str]:
    """Return timm's loader for the data and a description of the data."""
    loading = {"batch_size": args.batch_size, "workers": args.workers, "device": device}
    description = f"{args.data}, split {args.split}"
    if isinstance(whole, IterableDataset):
        if args.num_samples is not None:
            raise ValueError(f"--num-samples needs a data set that can be indexed, which {args.data} is not.")
        return evaluation_loader(whole, model, **loading), description
    size = len(whole)
    description += f", a random subset of {size} images" if args.num_samples is not None else ""
    return subset_loader(whole, choose_samples(size, args.num_samples, args.seed), model, **loading), description


def _check_classes(dataset: Dataset[Any], n_classes: int, args: argparse.Namespace) -> None:
    """Refuse data whose labels number other classes than the model's, which would silently count nonsense."""
    classes = class_names(dataset)
    if classes is None or args.class_map is not None or not n_classes or len(classes) == n_classes:
        return
    raise ValueError(
        f"the data has {len(classes)} classes and the model {n_classes} outputs, so its labels are not the model's. "
        "Pass --class-map FILE (folder names, one a line, in the order of the outputs), or --num-classes with a "
        "checkpoint trained on these classes."
    )
