"""``resnet-lesion study`` and ``resnet-lesion merge``."""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnet_lesion.cli.options import (
    add_amounts,
    add_data_options,
    add_device_options,
    as_device,
    from_options,
    path,
    positive,
)
from resnet_lesion.cli.output import NETCDF, check_folder, check_out, keep, words_beside
from resnet_lesion.cli.parser import add_command
from resnet_lesion.text import harmless

if TYPE_CHECKING:
    import torch
    import xarray as xr

    from resnet_lesion.runs.shards import ShardLike


def add(commands: Any) -> None:
    """Add the subcommands."""
    command = add_command(
        commands,
        "study",
        run,
        "run every analysis of a timm model and save one netCDF file",
        "resnet-lesion study resnet50.a1_in1k --data imagenet/ --num-samples 2000 --out resnet50.nc",
        "resnet-lesion study resnet18 --checkpoint mine.safetensors --num-classes 10 \\\n"
        "      --data torch/cifar10 --data-dir data/ --download --out mine.nc",
        "resnet-lesion study resnet50.a1_in1k --data imagenet/ --shard 3/8 --run-folder run/ --out shard-3.nc",
    )
    command.keeps = "run_folder"
    command.add_argument("model", metavar="MODEL", help="a name that timm.create_model takes; local-dir:PATH too")
    command.add_argument("--out", type=path, required=True, metavar="FILE.nc", help="the file to write")
    weights = command.add_argument_group("weights (default: timm's pretrained ones)")
    weights.add_argument("--checkpoint", type=Path, metavar="FILE", help="load these: safetensors, or a state dict")
    weights.add_argument("--ema", action="store_true", help="load the moving average of the weights from there")
    weights.add_argument("--no-pretrained", dest="pretrained", action="store_false", help="random weights")
    weights.add_argument("--num-classes", type=positive, metavar="N", help="number of outputs, if not the model's own")
    data = add_data_options(command)
    data.add_argument("--split", default="validation", help="which split")
    data.add_argument("--num-samples", type=positive, metavar="N", help="use a random subset of the images")
    add_amounts(add_device_options(command))
    long = command.add_argument_group("long runs")
    long.add_argument(
        "--run-folder", type=path, metavar="DIR", help="keep finished work there; the same command resumes from it"
    )
    long.add_argument(
        "--shard",
        type=_shard,
        metavar="I/N",
        help="do the I-th of N parts of the images, counted from 0, for merge; "
        "'env' for what torchrun or a Slurm array says",
    )

    command = add_command(
        commands,
        "merge",
        merge,
        "put the results of all shards of a study together",
        "resnet-lesion merge shard-*.nc --out resnet50.nc",
    )
    command.add_argument("files", type=path, nargs="+", metavar="FILE.nc", help="what study wrote for each shard")
    command.add_argument("--out", type=path, required=True, metavar="FILE.nc", help="the file to write")


def _shard(text: str) -> ShardLike:
    if text == "env":
        from resnet_lesion.runs.shards import as_shard

        try:
            return as_shard("env")
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error).replace("shard=(i, N)", "I/N")) from error
    numbers = re.fullmatch(r"(\d+)/(\d+)", text)
    if numbers is None or not int(numbers[1]) < int(numbers[2]):
        raise argparse.ArgumentTypeError(f"expected I/N with 0 <= I < N, or env, got {text!r}")
    return int(numbers[1]), int(numbers[2])


def run(args: argparse.Namespace) -> None:
    """Run every analysis, write the result and print its summary."""
    check_out(args.out, NETCDF)
    if args.run_folder is not None:
        check_folder(args.run_folder)
    device = as_device(args.device)
    import torch

    from resnet_lesion.analyzers.study import study
    from resnet_lesion.loading.images import ImageSet
    from resnet_lesion.loading.loaders import shuffled_loader
    from resnet_lesion.loading.models import model_by_name

    images = from_options(ImageSet, args)
    dataset = images.open()  # before the model, whose weights may have to be downloaded
    model = model_by_name(
        args.model,
        checkpoint=args.checkpoint,
        pretrained=args.pretrained,
        num_classes=args.num_classes,
        image_size=args.image_size,
        ema=args.ema,
        seed=args.seed,
        say=lambda text: print(f"note: {harmless(args.command.in_flags(text))}", file=sys.stderr),
    )
    if not args.pretrained:
        print("note: with random weights the results say nothing about a trained network", file=sys.stderr)
    model = model.eval().to(device)
    if args.channels_last:
        model = model.to(memory_format=torch.channels_last)
    _check_classes(dataset, int(getattr(model, "num_classes", 0)), args)
    loader = shuffled_loader(dataset, model, num_samples=args.num_samples, seed=args.seed, **images.loading(device))
    with _autocast(device, args.autocast):
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
    subset = f", a random subset of {len(dataset)} images" if args.num_samples is not None else ""
    describe_data(tree, f"{images}{subset}", args.history)
    _write(tree, args.out, args.run_folder)


def merge(args: argparse.Namespace) -> None:
    """Merge the shards, write the result and print its summary."""
    check_out(args.out, NETCDF, sources=args.files)
    import xarray as xr

    from resnet_lesion.runs.merging import merge

    tree = merge(args.files)
    if not isinstance(tree, xr.DataTree):
        raise TypeError("expected files of resnet-lesion study, got single results. rl.merge merges those.")
    tree.attrs["history"] = "\n".join(filter(None, [args.history, tree.attrs.get("history")]))
    _write(tree, args.out)


def _write(tree: xr.DataTree, path: Path, folder: Path | None = None) -> None:
    from resnet_lesion.reports.summary import summarise

    words = words_beside(path)
    try:
        keep(tree, path, folder)
    finally:
        print(summarise(tree), file=words)
    print(f"\nWritten to {path}. Next: resnet-lesion plot {shlex.quote(str(path))}", file=words)


def describe_data(tree: xr.DataTree, data: str, history: str) -> None:
    """Say in the result which data these were, which the analyzers cannot know, and what was run."""
    from resnet_lesion.results.quantities import groups

    for group, dataset in groups(tree):
        node = tree[group]
        if "data" in dataset.attrs:
            node.attrs["data"] = f"{dataset.attrs['data'].partition(' from ')[0]} from {data}"
    tree.attrs["history"] = history


def _autocast(device: torch.device, enabled: bool) -> AbstractContextManager[object]:
    import torch

    if not enabled:
        return nullcontext()
    bfloat16 = device.type != "cuda" or torch.cuda.is_bf16_supported()
    return torch.autocast(device.type, torch.bfloat16 if bfloat16 else torch.float16)


def _check_classes(dataset: Any, n_classes: int, args: argparse.Namespace) -> None:
    """Refuse data whose labels number other classes than the model's, which would silently count nonsense."""
    from resnet_lesion.loading.classes import output_names
    from resnet_lesion.loading.images import class_names

    classes = class_names(dataset)
    if classes is None or not n_classes or len(classes) == n_classes:
        return
    for parameter in ("class_map", "classes"):
        if getattr(args, parameter) is not None:
            raise ValueError(
                f"expected the names of all {n_classes} outputs of the model, one a line, in "
                f"{parameter}={str(getattr(args, parameter))!r}, got {len(classes)} names. For images of some of the "
                "outputs, list all of them in a file for --classes."
            )
    if len(classes) == 1:
        raise ValueError(f"expected a subfolder for each class in {args.data}, got images of one class only.")
    hint = _OF_IMAGENET if n_classes == 1000 and set(classes) <= set(output_names("imagenet-1k")) else ""
    raise ValueError(
        f"the data has {len(classes)} classes and the model {n_classes} outputs, so its labels are not the model's. "
        f"{hint}Pass --class-map FILE (folder names, one a line, in the order of the outputs), --classes FILE if there "
        "are images of some of the outputs only, or --num-classes with a checkpoint trained on these classes."
    )


_OF_IMAGENET = (
    "Its folders are synsets of ImageNet: pass --classes imagenet-1k if the outputs are ImageNet's. Otherwise: "
)
