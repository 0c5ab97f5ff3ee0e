"""``resnet-lesion study`` and ``resnet-lesion merge``."""

from __future__ import annotations

import argparse
import shlex
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import xarray as xr
from torch import nn
from torch.utils.data import Dataset, IterableDataset

from resnet_lesion.analyzers.study import study
from resnet_lesion.cli.options import add_amounts, add_data_options, add_device_options, as_device, check_out, positive
from resnet_lesion.loading.images import class_names, described, open_images, refuse_scaled_digits
from resnet_lesion.loading.loaders import choose_samples, evaluation_loader, subset_loader
from resnet_lesion.loading.models import model_of
from resnet_lesion.reports.summary import summarise
from resnet_lesion.results import storage
from resnet_lesion.results.quantities import groups
from resnet_lesion.runs.merging import merge
from resnet_lesion.runs.shards import Shard, as_shard

if TYPE_CHECKING:
    from collections.abc import Iterable


def add_study_options(run: argparse.ArgumentParser) -> None:
    run.add_argument("model", metavar="MODEL", help="a name that timm.create_model takes; local-dir:PATH too")
    run.add_argument("--out", type=Path, required=True, metavar="FILE.nc", help="the file to write")
    weights = run.add_argument_group("weights (default: timm's pretrained ones)")
    weights.add_argument("--checkpoint", type=Path, metavar="FILE", help="load these: safetensors, or a state dict")
    weights.add_argument("--no-pretrained", action="store_true", help="random weights")
    weights.add_argument("--num-classes", type=positive, metavar="N", help="number of outputs, if not the model's own")
    data = add_data_options(run)
    data.add_argument("--split", default="validation", help="which split")
    data.add_argument("--num-samples", type=positive, metavar="N", help="use a random subset of the images")
    how = add_device_options(run)
    add_amounts(how)
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


def study_command(args: argparse.Namespace) -> None:
    check_out(args.out)
    device = as_device(args.device)
    data = open_images(
        args.data,
        args.split,
        data_dir=args.data_dir,
        download=args.download,
        class_map=args.class_map,
        skip_unreadable=args.skip_unreadable,
    )  # before the model, whose weights may have to be downloaded
    refuse_scaled_digits(data, args.image_size)
    model = model_of(args).eval().to(device)
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
    describe_data(tree, description, args.history)
    _write(tree, args.out)


def merge_command(args: argparse.Namespace) -> None:
    check_out(args.out)
    tree = merge(args.files)
    if not isinstance(tree, xr.DataTree):
        raise TypeError("expected files of resnet-lesion study, got single results. rl.merge merges those.")
    tree.attrs["history"] = "\n".join(filter(None, [args.history, tree.attrs.get("history")]))
    _write(tree, args.out)


def _write(tree: xr.DataTree, path: Path) -> None:
    storage.save(tree, path)
    print(summarise(tree))
    print(f"\nWritten to {path}. Next: resnet-lesion plot {shlex.quote(str(path))}")


def describe_data(tree: xr.DataTree, data: str, history: str) -> None:
    """Say in the result which data these were, which the analyzers cannot know, and what was run."""
    for group, dataset in groups(tree):
        node = tree[group]
        if "data" in dataset.attrs:
            node.attrs["data"] = f"{dataset.attrs['data'].partition(' from ')[0]} from {data}"
    tree.attrs["history"] = history


def _autocast(device: torch.device, enabled: bool) -> AbstractContextManager[object]:
    if not enabled:
        return nullcontext()
    bfloat16 = device.type != "cuda" or torch.cuda.is_bf16_supported()
    return torch.autocast(device.type, torch.bfloat16 if bfloat16 else torch.float16)


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
