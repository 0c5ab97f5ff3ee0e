"""The demo: a trained 110-layer network that ships with the package, on digits that ship with scikit-learn."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import xarray as xr

from resnet_lesion.analyzers.study import study
from resnet_lesion.cli.options import check_folder
from resnet_lesion.cli.study import describe_data
from resnet_lesion.digits import load_digits
from resnet_lesion.loading.loaders import choose_samples
from resnet_lesion.plots.catalogue import save_figures
from resnet_lesion.reports.findings import findings
from resnet_lesion.results import storage


def demo_command(args: argparse.Namespace) -> None:
    check_folder(args.out)
    tree = run_demo(seed=args.seed, n_draws=args.n_draws, num_samples=args.num_samples)
    describe_data(tree, "scikit-learn's digits, test split", args.history)
    args.out.mkdir(parents=True, exist_ok=True)
    storage.save(tree, args.out / "study.nc")
    paths = save_figures(tree, args.out)
    for line in demo_findings(tree):
        print(line)
    file = shlex.quote(str(args.out / "study.nc"))
    print(f"Written to {args.out}: study.nc and {len(paths)} figures (*.png). Next: resnet-lesion show {file}")


MODEL = "cifar_preactresnet110"


# what keeps the demo well under two minutes on two cores
_N_DELETED = (1, 2, 3, 4, 6, 8, 10, 15, 20)


_N_SWAPS = (1, 2, 4, 8, 16, 24)


_N_PATHS, _N_GRADIENT_IMAGES = 40, 10


_SUBJECTS = ("deletion", "random_deletion", "reorder", "effective_path")


def run_demo(
    *, seed: int = 0, n_draws: int = 5, num_samples: int | None = None, show_progress: bool = True
) -> xr.DataTree:
    """Study the embedded pre-activation ResNet-110 on the digits that it has not seen; nothing is downloaded.

    Args:
        seed: Seed of everything random.
        n_draws: Number of random deletions and orders of each size.
        num_samples: How many of the 540 test images to use, drawn at random; None for all.
        show_progress: Show progress bars.

    Returns:
        What :func:`resnet_lesion.study` returns.

    Raises:
        ModuleNotFoundError: If scikit-learn is not installed (extra ``demo``).
        ValueError: If an option is out of bounds.
    """
    import timm

    inputs, targets = load_digits("test")
    chosen = choose_samples(len(inputs), num_samples, seed)
    model = timm.create_model(MODEL, pretrained=True)
    with _one_thread():
        return study(
            model,
            (inputs[chosen], targets[chosen]),
            n_deleted=_N_DELETED,
            n_swaps=_N_SWAPS,
            n_draws=n_draws,
            n_paths=_N_PATHS,
            n_gradient_images=_N_GRADIENT_IMAGES,
            seed=seed,
            show_progress=show_progress,
        )


@contextmanager
def _one_thread() -> Iterator[None]:
    """Keep torch to one thread: on images of 8x8 a second one gains little, and waits if the machine is busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def demo_findings(tree: xr.DataTree) -> list[str]:
    """Say in five lines what the demo's figures show, each number computed from the data.

    Args:
        tree: What :func:`run_demo` returned.

    Returns:
        The lines: one block deleted, many deleted, the paths left, blocks swapped, effective paths.
    """
    return [line for name in _SUBJECTS if name in tree.children for line in findings(tree[name].to_dataset())]
