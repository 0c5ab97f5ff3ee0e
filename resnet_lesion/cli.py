"""The command ``resnet-lesion``: demo, study, merge, show, plot, report, train, reproduce, models."""

from __future__ import annotations

import argparse
import ctypes
import os
import shlex
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import xarray as xr
from torch import nn
from torch.utils.data import Dataset, IterableDataset

from resnet_lesion import storage
from resnet_lesion.arguments import parser
from resnet_lesion.branch import did_you_mean
from resnet_lesion.demo import demo_findings, run_demo
from resnet_lesion.errors import AdapterError
from resnet_lesion.images import (
    Source,
    choose_samples,
    class_names,
    described,
    evaluation_loader,
    open_images,
    refuse_scaled_digits,
    subset_loader,
)
from resnet_lesion.merging import merge
from resnet_lesion.plots import save_figures
from resnet_lesion.quantities import groups
from resnet_lesion.report import write_report
from resnet_lesion.reproduction import reproduce
from resnet_lesion.results import now
from resnet_lesion.study import study
from resnet_lesion.summary import as_json, summarise, summarise_claims
from resnet_lesion.support import supported_models
from resnet_lesion.training import Recipe, train
from resnet_lesion.weights import save_weights, untrained, with_own_weights

if TYPE_CHECKING:
    from collections.abc import Iterable

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


def _demo(args: argparse.Namespace) -> None:
    _check_folder(args.out)
    tree = run_demo(seed=args.seed, n_draws=args.n_draws, num_samples=args.num_samples)
    _describe(tree, "scikit-learn's digits, test split", args.history)
    args.out.mkdir(parents=True, exist_ok=True)
    storage.save(tree, args.out / "study.nc")
    paths = save_figures(tree, args.out)
    for line in demo_findings(tree):
        print(line)
    file = shlex.quote(str(args.out / "study.nc"))
    print(f"Written to {args.out}: study.nc and {len(paths)} figures (*.png). Next: resnet-lesion show {file}")


def _study(args: argparse.Namespace) -> None:
    _check_out(args.out)
    device = _device(args.device)
    data = open_images(
        args.data,
        args.split,
        data_dir=args.data_dir,
        download=args.download,
        class_map=args.class_map,
        skip_unreadable=args.skip_unreadable,
    )  # before the model, whose weights may have to be downloaded
    refuse_scaled_digits(data, args.image_size)
    model = _model(args).eval().to(device)
    if args.channels_last:
        model = model.to(memory_format=torch.channels_last)
    _check_classes(data, int(getattr(model, "num_classes", 0)), args)
    loader, description = _loader(args, data, model, device)
    with _autocast(device, args.amp):
        tree = study(
            model,
            loader,
            n_draws=args.n_draws,
            n_paths=args.n_paths,
            n_gradient_images=args.n_gradient_images,
            seed=args.seed,
            checkpoint=args.run_folder,
            shard=args.shard,
        )
    _describe(tree, description, args.history)
    _write(tree, args.out)


def _merge(args: argparse.Namespace) -> None:
    _check_out(args.out)
    tree = merge(args.files)
    if not isinstance(tree, xr.DataTree):
        raise TypeError("expected files of resnet-lesion study, got single results. rl.merge merges those.")
    tree.attrs["history"] = "\n".join(filter(None, [args.history, tree.attrs.get("history")]))
    _write(tree, args.out)


def _check_out(path: Path) -> None:
    """Refuse what cannot be written to before the work is done."""
    if not path.parent.is_dir():
        raise FileNotFoundError(f"the folder {str(path.parent)!r} of --out does not exist; create it first.")
    if path.is_dir():
        raise IsADirectoryError(f"expected a file for --out, got the folder {str(path)!r}.")


def _check_folder(path: Path) -> None:
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(f"expected a folder to write to, got the file {str(path)!r}.")


def _write(tree: xr.DataTree, path: Path) -> None:
    storage.save(tree, path)
    print(summarise(tree))
    print(f"\nWritten to {path}. Next: resnet-lesion plot {shlex.quote(str(path))}")


def _show(args: argparse.Namespace) -> None:
    result = storage.open(args.file)
    print(as_json(result) if args.json else summarise(result))


def _plot(args: argparse.Namespace) -> None:
    result, out = storage.open(args.file), args.out or args.file.with_name(f"{args.file.stem}-figures")
    _check_folder(out)
    for path in save_figures(result, out):
        print(path)


def _report(args: argparse.Namespace) -> None:
    out = args.out or args.file.with_suffix(".html")
    _check_out(out)
    write_report(storage.open(args.file), out)
    print(f"Written to {out}.")


def _describe(tree: xr.DataTree, data: str, history: str) -> None:
    """Say in the result which data these were, which the analyzers cannot know, and what was run."""
    for group, dataset in groups(tree):
        node = tree[group]
        if "data" in dataset.attrs:
            node.attrs["data"] = f"{dataset.attrs['data'].partition(' from ')[0]} from {data}"
    tree.attrs["history"] = history


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
    log.attrs |= {"data": source.trained_on, "history": args.history}
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
    tree.attrs["history"] = args.history
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
        raise ValueError(f"expected --device as cpu, cuda or cuda:1, got {name!r}.") from error
    if device.type == "mps":
        raise ValueError("--device mps has no float64, in which results are added up. Try --device cpu.")
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
    size = {} if args.image_size is None else {"input_size": (3, args.image_size, args.image_size)}
    try:
        model = timm.create_model(
            args.model, pretrained=pretrained, num_classes=args.num_classes, pretrained_cfg_overlay=size
        )
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
    if pretrained:
        return model
    if args.checkpoint is not None:
        _load(model, args.checkpoint)
    else:
        print("note: with random weights the results say nothing about a trained network", file=sys.stderr)
    return with_own_weights(model)


def _load(model: nn.Module, checkpoint: Path) -> None:
    from timm.models import load_checkpoint

    try:
        load_checkpoint(model, str(checkpoint), weights_only=True)
    except Exception as error:  # whatever an unreadable or ill-fitting file makes torch, safetensors and pickle raise
        cause = f"it does not hold plain weights, and nothing else is unpickled ({type(error).__name__})."
        if "state_dict" in str(error):
            cause = f"{' '.join(str(error).split()):.250}... Is it of another model, or another --num-classes?"
        raise ValueError(
            f"expected a state dict of this model, as safetensors or saved by torch.save, "
            f"got {str(checkpoint)!r}: {cause}"
        ) from error


def _loader(args: argparse.Namespace, whole: Any, model: nn.Module, device: torch.device) -> tuple[Iterable[Any], str]:
    """Return timm's loader for the data and a description of the data."""
    loading = {"batch_size": args.batch_size, "workers": args.workers, "device": device}
    description = described(args.data, args.split, args.image_size)
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
    if len(classes) == 1:
        raise ValueError(f"expected a subfolder for each class in {args.data}, got images of one class only.")
    raise ValueError(
        f"the data has {len(classes)} classes and the model {n_classes} outputs, so its labels are not the model's. "
        "Pass --class-map FILE (folder names, one a line, in the order of the outputs), or --num-classes with a "
        "checkpoint trained on these classes."
    )


_COMMANDS = {
    "demo": _demo,
    "study": _study,
    "merge": _merge,
    "show": _show,
    "plot": _plot,
    "report": _report,
    "train": _train,
    "reproduce": _reproduce,
    "models": _models,
}
