"""``resnet-lesion demo``: a trained 110-layer network that ships with the package, on scikit-learn's digits."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnet_lesion.cli.options import not_negative, path, positive
from resnet_lesion.cli.output import check_folder, keep
from resnet_lesion.cli.parser import add_command
from resnet_lesion.cli.study import describe_data

if TYPE_CHECKING:
    import xarray as xr

_MODEL = "cifar_preactresnet110"

# what keeps the demo well under two minutes on two cores
_N_DELETED = (1, 2, 3, 4, 6, 8, 10, 15, 20)

_N_SWAPS = (1, 2, 4, 8, 16, 24)

_N_PATHS, _N_GRADIENT_IMAGES = 40, 10

_SUBJECTS = ("deletion", "random_deletion", "reorder", "effective_path")


def add(commands: Any) -> None:
    """Add the subcommand."""
    command = add_command(
        commands,
        "demo",
        run,
        "study the embedded ResNet-110 on handwritten digits, offline, within two minutes",
        "resnet-lesion demo --out resnet-lesion-demo",
    )
    command.add_argument("--out", type=path, default=Path("resnet-lesion-demo"), metavar="DIR", help="where to write")
    command.add_argument(
        "--n-draws", type=positive, default=5, metavar="N", help="random deletions and reorderings of each size"
    )
    command.add_argument("--num-samples", type=positive, metavar="N", help="use a random subset of the 540 images")
    command.add_argument("--seed", type=not_negative, default=0, metavar="N", help="seed of everything random")


def run(args: argparse.Namespace) -> None:
    """Study the digits, write the result and its figures, and print what they show."""
    check_folder(args.out)
    from resnet_lesion.plots.catalogue import save_figures

    tree = _study(args)
    describe_data(tree, "scikit-learn's digits, test split", args.history)
    args.out.mkdir(parents=True, exist_ok=True)
    keep(tree, args.out / "study.nc")
    paths = save_figures(tree, args.out)
    for line in _findings(tree):
        print(line)
    file = shlex.quote(str(args.out / "study.nc"))
    print(f"Written to {args.out}: study.nc and {len(paths)} figures (*.png). Next: resnet-lesion show {file}")


def _study(args: argparse.Namespace) -> xr.DataTree:
    """Study the embedded network on the digits that it has not seen; nothing is downloaded."""
    import timm

    from resnet_lesion.analyzers.study import study
    from resnet_lesion.digits import load_digits
    from resnet_lesion.loading.loaders import choose_samples

    inputs, targets = load_digits("test")
    chosen = choose_samples(len(inputs), args.num_samples, args.seed)
    model = timm.create_model(_MODEL, pretrained=True)
    with _one_thread():
        return study(
            model,
            (inputs[chosen], targets[chosen]),
            n_deleted=_N_DELETED,
            n_swaps=_N_SWAPS,
            n_draws=args.n_draws,
            n_paths=_N_PATHS,
            n_gradient_images=_N_GRADIENT_IMAGES,
            seed=args.seed,
        )


@contextmanager
def _one_thread() -> Iterator[None]:
    """Keep torch to one thread: on images of 8x8 a second one gains little, and waits if the machine is busy."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _findings(tree: xr.DataTree) -> list[str]:
    """Say in five lines what the figures show: one block deleted, many, the paths left, swaps, effective paths."""
    from resnet_lesion.reports.findings import findings

    return [line for name in _SUBJECTS if name in tree.children for line in findings(tree[name].to_dataset())]
