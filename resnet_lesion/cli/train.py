"""``resnet-lesion train`` and ``resnet-lesion reproduce``."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

import torch

from resnet_lesion.cli.options import (
    add_amounts,
    add_device_options,
    add_source_options,
    as_device,
    as_source,
    not_negative,
    positive,
)
from resnet_lesion.loading.models import save_weights, untrained
from resnet_lesion.paper.reproduction import reproduce
from resnet_lesion.plots.catalogue import save_figures
from resnet_lesion.reports.summary import summarise_claims
from resnet_lesion.results import storage
from resnet_lesion.training.loop import train
from resnet_lesion.training.recipe import Recipe


def add_reproduction_options(run: argparse.ArgumentParser) -> None:
    run.add_argument("--out", type=Path, required=True, metavar="DIR", help="where to write; a run there is continued")
    data = add_source_options(run)
    data.add_argument(
        "--num-samples", type=positive, metavar="N", help="run the lesions on a random subset of the images"
    )
    how = add_device_options(run)
    how.add_argument("--epochs", type=positive, default=Recipe().epochs, metavar="N", help="of each training")
    how.add_argument("--n-seeds", type=positive, default=3, metavar="N", help="trainings of the networks compared")
    add_amounts(how)
    how.add_argument("--parallel", type=positive, metavar="N", help="trainings at once (default: one for each core)")


def add_training_options(run: argparse.ArgumentParser) -> None:
    recipe = Recipe()
    run.add_argument("model", metavar="MODEL", help="a timm ResNet, or one of the paper's: cifar_preactresnet110, ...")
    run.add_argument("--out", type=Path, required=True, metavar="DIR", help="where to write; a run there is continued")
    data = add_source_options(run)
    data.add_argument(
        "--num-classes", type=positive, metavar="N", help="number of outputs (default: the number of classes)"
    )
    paths = run.add_argument_group("which blocks are trained")
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
        help="drop branches of single images; those of the last block survive with probability P_L, earlier ones more",
    )
    how = add_device_options(run)
    how.add_argument("--epochs", type=positive, default=recipe.epochs, metavar="N", help="passes through the data")
    how.add_argument("--learning-rate", type=float, default=recipe.learning_rate, metavar="X", help="the highest")
    how.add_argument("--warmup-epochs", type=not_negative, default=0, metavar="N", help="epochs over which it rises")
    how.add_argument("--optimizer", default=recipe.optimizer, help="as timm names it")
    how.add_argument("--scheduler", default=recipe.scheduler, help="as timm names it")
    how.add_argument("--weight-decay", type=float, default=recipe.weight_decay, metavar="X", help="weight decay")
    how.add_argument("--clip-gradient", type=float, metavar="X", help="largest norm of the gradient")
    how.add_argument("--ema-decay", type=float, metavar="X", help="average the weights with this decay")


def train_command(args: argparse.Namespace) -> None:
    device = as_device(args.device)
    source = as_source(args)
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


def reproduce_command(args: argparse.Namespace) -> None:
    args.out.mkdir(parents=True, exist_ok=True)
    tree = reproduce(
        as_source(args),
        args.out,
        recipe=Recipe(epochs=args.epochs, warmup_epochs=min(2, args.epochs - 1), autocast=args.amp, seed=args.seed),
        n_seeds=args.n_seeds,
        n_draws=args.n_draws,
        n_paths=args.n_paths,
        n_gradient_images=args.n_gradient_images,
        num_samples=args.num_samples,
        channels_last=args.channels_last,
        device=as_device(args.device),
        workers=args.parallel,
    )
    tree.attrs["history"] = args.history
    storage.save(tree, args.out / "reproduction.nc")
    paths = save_figures(tree, args.out)
    print(summarise_claims(tree["claims"].to_dataset()))
    print(f"\nWritten to {args.out}: reproduction.nc and {len(paths)} figures (*.png).")
