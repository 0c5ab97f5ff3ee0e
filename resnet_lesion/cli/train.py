"""``resnet-lesion train`` and ``resnet-lesion reproduce``."""

from __future__ import annotations

import argparse
import shlex
from dataclasses import replace
from typing import Any

from resnet_lesion.cli.options import (
    add_amounts,
    add_device_options,
    add_source_options,
    as_device,
    from_options,
    not_negative,
    path,
    positive,
)
from resnet_lesion.cli.output import check_folder, keep
from resnet_lesion.cli.parser import Command, add_command
from resnet_lesion.training.recipe import Recipe


def add(commands: Any) -> None:
    """Add the subcommands."""
    recipe = Recipe()
    command = add_command(
        commands,
        "train",
        run,
        "train a network, all of its blocks or a random few in each mini-batch; resumes where it was stopped",
        "resnet-lesion train cifar_preactresnet110 --data digits --epochs 30 --out plain/",
        "resnet-lesion train cifar_preactresnet110 --data torch/cifar10 --data-dir data/ --download \\\n"
        "      --modules-per-batch 23 --out effective/",
    )
    command.add_argument(
        "model", metavar="MODEL", help="a timm ResNet, or one of the paper's: cifar_preactresnet110, ..."
    )
    _add_out(command)
    data = add_source_options(command)
    data.add_argument(
        "--num-classes", type=positive, metavar="N", help="number of outputs (default: the number of classes)"
    )
    paths = command.add_argument_group("which blocks are trained")
    paths.add_argument(
        "--modules-per-batch",
        type=positive,
        metavar="K",
        help="train K random blocks in each mini-batch; of the others only the shortcut is computed",
    )
    paths.add_argument(
        "--stochastic-depth",
        type=float,
        metavar="P_L",
        help="drop branches of single images; the last block's survive with probability P_L, earlier ones more often",
    )
    how = add_device_options(command)
    how.add_argument("--epochs", type=positive, default=recipe.epochs, metavar="N", help="passes through the data")
    how.add_argument("--learning-rate", type=float, default=recipe.learning_rate, metavar="X", help="the highest")
    how.add_argument("--warmup-epochs", type=not_negative, default=0, metavar="N", help="epochs over which it rises")
    how.add_argument("--optimizer", default=recipe.optimizer, help="as timm names it")
    how.add_argument("--scheduler", default=recipe.scheduler, help="as timm names it")
    how.add_argument("--weight-decay", type=float, default=recipe.weight_decay, metavar="X", help="weight decay")
    how.add_argument("--clip-gradient", type=float, metavar="X", help="largest norm of the gradient")
    how.add_argument("--ema-decay", type=float, metavar="X", help="average the weights with this decay")

    command = add_command(
        commands,
        "reproduce",
        reproduce,
        "train the paper's networks and run all of its experiments; resumes where it was stopped",
        "resnet-lesion reproduce --data digits --epochs 30 --out reproduction/",
        "resnet-lesion reproduce --data torch/cifar10 --data-dir data/ --download --amp --out cifar10/",
    )
    _add_out(command)
    data = add_source_options(command)
    data.add_argument(
        "--num-samples", type=positive, metavar="N", help="run the lesions on a random subset of the images"
    )
    how = add_device_options(command)
    how.add_argument("--epochs", type=positive, default=recipe.epochs, metavar="N", help="of each training")
    how.add_argument("--n-seeds", type=positive, default=3, metavar="N", help="trainings of the networks compared")
    add_amounts(how)
    how.add_argument("--parallel", type=positive, metavar="N", help="trainings at once (default: one for each core)")


def _add_out(command: Command) -> None:
    command.keeps = "out"
    command.add_argument(
        "--out", type=path, required=True, metavar="DIR", help="where to write; a run there is resumed"
    )


def run(args: argparse.Namespace) -> None:
    """Train a network; write its weights and curves, and print its error."""
    check_folder(args.out)
    recipe = from_options(Recipe, args)
    device = as_device(args.device)
    import torch

    from resnet_lesion.loading.images import Source
    from resnet_lesion.loading.models import save_weights, untrained
    from resnet_lesion.results import storage
    from resnet_lesion.training.loop import train

    source = from_options(Source, args)
    n_classes = args.num_classes or source.n_classes
    model = untrained(
        args.model,
        source.open(),
        n_classes,
        seed=args.seed,
        stochastic_depth=args.stochastic_depth,
        image_size=args.image_size,
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
    log.attrs |= {"data": str(source), "history": args.history}
    try:
        storage.save(log, args.out / "training.nc")
        save_weights(model, args.out)
    except Exception as error:  # whatever a full disk makes netCDF and safetensors raise
        raise OSError(
            f"{error!s:.300} Nothing is lost: once {str(args.out)!r} can be written to, the same command ends from "
            "checkpoint.pt."
        ) from error
    print(
        f"Error on {source.validation}: {100 * log.validation_error.values[-1]:.2f} %. Written to {args.out}: "
        f"model.safetensors, config.json, training.nc. "
        f"Next: resnet-lesion study local-dir:{shlex.quote(str(args.out))} --data ... --out study.nc"
    )


def reproduce(args: argparse.Namespace) -> None:
    """Run all of the paper's experiments; write the result and its figures, and print how its claims fared."""
    check_folder(args.out)
    device = as_device(args.device)
    from resnet_lesion.loading.images import Source
    from resnet_lesion.paper.reproduction import reproduce
    from resnet_lesion.plots.catalogue import save_figures
    from resnet_lesion.reports.summary import summarise_claims

    source = from_options(Source, args)
    args.out.mkdir(parents=True, exist_ok=True)
    tree = reproduce(
        source,
        args.out,
        recipe=replace(from_options(Recipe, args), warmup_epochs=min(2, args.epochs - 1)),
        n_seeds=args.n_seeds,
        n_draws=args.n_draws,
        n_paths=args.n_paths,
        n_gradient_images=args.n_gradient_images,
        num_samples=args.num_samples,
        channels_last=args.channels_last,
        device=device,
        workers=args.parallel,
    )
    tree.attrs["history"] = args.history
    keep(tree, args.out / "reproduction.nc")
    paths = save_figures(tree, args.out)
    print(summarise_claims(tree["claims"].to_dataset()))
    print(f"\nWritten to {args.out}: reproduction.nc and {len(paths)} figures (*.png).")
