"""The paper with its controls: train its networks, run every analysis, and set its claims beside what comes out."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import nn
from tqdm import tqdm

from resnet_lesion.analyzers.deletion import Deletion
from resnet_lesion.analyzers.study import study
from resnet_lesion.loading.images import Source
from resnet_lesion.loading.models import load_weights, save_weights, untrained
from resnet_lesion.network.isolation import isolated
from resnet_lesion.paper.claims import claims
from resnet_lesion.paper.comparison import compare
from resnet_lesion.results import storage
from resnet_lesion.runs.data import IGNORE_INDEX, Data, batches
from resnet_lesion.runs.processes import in_processes
from resnet_lesion.training.loop import train
from resnet_lesion.training.recipe import Recipe


@dataclass(frozen=True)
class Subject:
    """One of the paper's networks.

    Attributes:
        model: Its name in timm.
        changes: Where its recipe differs from the common one.
        stochastic_depth: Survival probability of its last block, if it is trained with stochastic depth.
        repeated: Whether it is trained from several seeds, for the comparison of errors.
    """

    model: str
    changes: dict[str, Any] = dataclasses.field(default_factory=dict)
    stochastic_depth: float | None = None
    repeated: bool = False


SUBJECTS = {
    "plain": Subject("cifar_preactresnet110", repeated=True),
    # the paper's 23 of 54: paths of 11.5 blocks on average, the middle of the effective lengths
    "effective_paths": Subject("cifar_preactresnet110", {"modules_per_batch": 23}, repeated=True),
    "stochastic_depth": Subject("cifar_preactresnet110", stochastic_depth=0.5),
    # 15 layers with neither skips nor norms stay at chance level with SGD
    "vgg15": Subject("cifar_vgg15", {"optimizer": "adamw", "learning_rate": 0.0005}),
    "vgg15_bn": Subject("cifar_vgg15_bn", {"learning_rate": 0.05}),
}


def reproduce(
    source: Source,
    out: Path,
    *,
    recipe: Recipe | None = None,
    n_seeds: int = 3,
    n_draws: int = 10,
    n_paths: int = 100,
    n_gradient_images: int = 128,
    num_samples: int | None = None,
    channels_last: bool = False,
    device: torch.device | None = None,
    workers: int | None = None,
    show_progress: bool = True,
) -> xr.DataTree:
    """Train the paper's networks and run all of its analyses.

    Args:
        source: The images.
        out: A folder for weights, checkpoints and logs. Networks that are already there are not trained again, and must
            be of the same data and recipe.
        recipe: How to train; each network has its own changes to it (:data:`SUBJECTS`).
        n_seeds: How many times the plain network and the one trained on effective paths only are trained.
        n_draws: Random repetitions of each deletion and reordering.
        n_paths: Random paths of each length.
        n_gradient_images: How many training images gradients are measured on.
        num_samples: How many of the evaluation images the lesions are run on, chosen at random; None for all. The
            comparison of errors takes all of them.
        channels_last: Whether to train and analyse in the channels-last memory format.
        device: Where to compute; default a GPU if there is one.
        workers: How many networks are trained at once; default one for each core on a CPU, one on a GPU.
        show_progress: Show progress bars.

    Returns:
        A DataTree: a group for each network with its analyses, ``training`` with the curves, ``comparison`` with the
        errors over seeds and the tests of their difference, and ``claims`` with what the paper says, what came out and
        whether the two agree.

    Raises:
        ValueError: If the data has no training images, a number is out of bounds, or the folder has networks that were
            trained differently.
    """
    if n_seeds < 1:
        raise ValueError(f"expected at least one seed, got {n_seeds}.")
    recipe = recipe or Recipe()
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    jobs = [
        _Job(name, seed, source, out / f"{name}-{seed}", recipe, str(device), channels_last)
        for seed in range(recipe.seed, recipe.seed + n_seeds)
        for name, subject in SUBJECTS.items()
        if subject.repeated or seed == recipe.seed
    ]
    logs = _train_all(jobs, workers or (1 if device.type == "cuda" else os.cpu_count() or 1), show_progress)

    tree: dict[str, xr.Dataset | xr.DataTree] = {
        f"training/{job.name}-{job.seed}": log for job, log in zip(jobs, logs, strict=True)
    }
    right: dict[str, list[NDArray[np.bool_]]] = {name: [] for name in SUBJECTS}
    for job in jobs:
        model = job.trained()
        right[job.name].append(_right(model, source.evaluation(model, device), device))
        if job.seed != recipe.seed:
            continue
        images = source.evaluation(model, device, num_samples, recipe.seed)
        if job.name != "plain":
            tree[f"{job.name}/deletion"] = Deletion(model).analyze(images, show_progress=show_progress)
            continue
        whole = study(
            model,
            images,
            gradient_data=source.unchanged(model, device),
            n_draws=n_draws,
            n_paths=n_paths,
            n_gradient_images=n_gradient_images,
            seed=recipe.seed,
            show_progress=show_progress,
        )
        tree |= {f"plain/{group}": node.to_dataset() for group, node in whole.children.items()}
    tree["comparison"] = compare(right["plain"], right["effective_paths"], ("plain", "effective_paths"))
    tree["claims"] = claims(tree)
    result = xr.DataTree.from_dict(tree)
    # how each network was trained is in its own log
    result.attrs |= {"title": "The paper's experiments", "data": str(source.validation)}
    return result


@dataclass(frozen=True)
class _Job:
    """One training, so that another process can do it."""

    name: str
    seed: int
    source: Source
    folder: Path
    recipe: Recipe
    device: str
    channels_last: bool

    @property
    def own_recipe(self) -> Recipe:
        return dataclasses.replace(self.recipe, seed=self.seed, **SUBJECTS[self.name].changes)

    def model(self) -> nn.Module:
        subject = SUBJECTS[self.name]
        model = untrained(
            subject.model,
            self.source.open(),
            self.source.n_classes,
            seed=self.seed,
            stochastic_depth=subject.stochastic_depth,
            image_size=self.source.image_size,
        )
        memory_format = torch.channels_last if self.channels_last else torch.contiguous_format
        return model.to(self.device).to(memory_format=memory_format)

    def trained(self) -> nn.Module:
        model = self.model()
        load_weights(model, self.folder)
        return model


def _train(job: _Job, show_progress: bool = False) -> xr.Dataset:
    """Train one network, unless its weights and log are already there."""
    log_file, trained_on = job.folder / "training.nc", str(job.source)
    if log_file.exists():
        log = _dataset(storage.open(log_file))
        for name, found, wanted in (
            ("data", log.attrs.get("data"), trained_on),
            ("recipe", json.loads(log.attrs["options"]), json.loads(json.dumps(dataclasses.asdict(job.own_recipe)))),
        ):
            if found != wanted:
                raise ValueError(
                    f"expected a network trained with {name} {wanted} in {job.folder}, got {found}. "
                    "Pass the same again, or write to another folder."
                )
        return log
    job.folder.mkdir(parents=True, exist_ok=True)
    device = torch.device(job.device)
    model = job.model()
    log = train(
        model,
        job.source.training(model, device),
        job.own_recipe,
        validation=job.source.evaluation(model, device),
        checkpoint=job.folder / "checkpoint.pt",
        show_progress=show_progress,
    )
    log.attrs["data"] = trained_on
    if SUBJECTS[job.name].stochastic_depth is not None:
        log.attrs["stochastic_depth"] = SUBJECTS[job.name].stochastic_depth
    save_weights(model, job.folder)
    storage.save(log, log_file)  # last, as it says that the training is done
    (job.folder / "checkpoint.pt").unlink()
    return log


def _train_all(jobs: Sequence[_Job], workers: int, show_progress: bool) -> list[xr.Dataset]:
    if workers == 1:
        return [_train(job, show_progress) for job in jobs]
    # one thread each: on small images a second gains little
    logs = in_processes(_train, jobs, workers)
    return list(tqdm(logs, "training", len(jobs), unit="network", disable=not show_progress))


def _right(model: nn.Module, images: Data, device: torch.device) -> NDArray[np.bool_]:
    """Tell of each image whether the model gets it right."""
    right = []
    with isolated(model), torch.no_grad():
        for inputs, targets in batches(images):
            correct = (model(inputs.to(device)).argmax(1) == targets.to(device)).cpu()
            right.append(correct[(targets != IGNORE_INDEX).cpu()])
    return torch.cat(right).numpy()


def _dataset(result: xr.Dataset | xr.DataTree) -> xr.Dataset:
    if not isinstance(result, xr.Dataset):
        raise TypeError("expected the log of a training, got a tree of results.")
    return result
