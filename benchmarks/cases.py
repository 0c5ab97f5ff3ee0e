"""What is measured, on which networks, and how much of it on which device."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

from . import engine, gradients, lesions, proof, startup, training
from .networks import Spec

_QUICK = {"pixels": 32, "images": 2, "draws": 1, "timed": 4, "turns": 1}
_NO_NETWORK = Spec("no network", pixels=0, images=0, turns=1)
# few images, so that 200 lesions of the large networks end within the hour on two cores
NETWORKS: Mapping[str, tuple[Spec, ...]] = {
    "cpu": (
        Spec("cifar_preactresnet110", pixels=32, images=8),
        Spec("resnet50", pixels=224, images=2),
        Spec("resnetv2_101", pixels=224, images=1),
        Spec("resnet200d", pixels=224, images=1, turns=2),
    ),
    "cuda": (
        Spec("cifar_preactresnet110", pixels=32, images=64, turns=5),
        Spec("resnet50", pixels=224, images=64, turns=5),
        Spec("resnetv2_101", pixels=224, images=64),
        Spec("resnet200d", pixels=224, images=32),
    ),
    # their smaller siblings
    "quick": (
        Spec("cifar_preactresnet38", **_QUICK),
        Spec("resnet50d", **_QUICK),
        Spec("resnetv2_50", **_QUICK),
    ),
}


@dataclass(frozen=True)
class Case:
    """One measurement.

    Attributes:
        about: What is measured.
        measure: Measures it on one network and device.
        specs: The networks, by device ("cpu", "cuda") or "quick" for the least of everything.
        environment: Variables to set where it is measured, which is a separate process if there are any.
    """

    about: str
    measure: Callable[[Spec, str], dict[str, object]]
    specs: Mapping[str, tuple[Spec, ...]]
    environment: Mapping[str, str] = field(default_factory=dict)


def on_all(**changes: object) -> dict[str, tuple[Spec, ...]]:
    """Take all networks with some fields changed, except in the quick run."""
    return {
        size: specs if size == "quick" else tuple(replace(spec, **changes) for spec in specs)
        for size, specs in NETWORKS.items()
    }


def on_more_images(**changes: object) -> dict[str, tuple[Spec, ...]]:
    """Take enough images that what an analysis does once weighs little, as it does on a data set."""
    times = {"cifar_preactresnet110": 4, "resnet50": 8, "resnetv2_101": 6, "resnet200d": 3}
    return {
        size: tuple(replace(spec, images=times.get(spec.model, 1) * spec.images) for spec in specs)
        for size, specs in on_all(**changes).items()
    }


def cifar(name: str, cpu: tuple[int, ...], cuda: tuple[int, ...]) -> dict[str, tuple[Spec, ...]]:
    """Take a CIFAR network with several values of one of its numbers; the first two in the quick run."""
    values = {"cpu": cpu, "cuda": cuda, "quick": cpu[:2]}
    return {
        size: tuple(replace(NETWORKS[size][0], **{"timed": 8, name: value}) for value in several)
        for size, several in values.items()
    }


CASES: Mapping[str, Case] = {
    "single-deletion": Case("each block deleted alone", lesions.single_deletion, on_more_images(timed=10)),
    "random-deletions": Case(
        "200 random subsets of 1 to 10 blocks deleted", lesions.random_deletions, on_all(timed=10)
    ),
    "reorderings": Case("1 to 10 random pairs of blocks swapped, 200 times", lesions.reorderings, on_all(timed=10)),
    "sampled-paths": Case(
        "gradient norms of two random paths of each length", gradients.sampled_paths, on_all(timed=10, draws=2)
    ),
    "exact-paths": Case("gradients of all path lengths, exactly", gradients.exact_paths, on_all()),
    "scaling-blocks": Case(
        "each block deleted alone, in ever deeper networks",
        lesions.single_deletion,
        cifar("stage_blocks", cpu=(2, 4, 9, 18), cuda=(2, 4, 9, 18, 36)),
    ),
    "scaling-lesions": Case(
        "ever more random subsets of 1 to 10 blocks deleted",
        lesions.random_deletions,
        cifar("draws", cpu=(1, 4, 16, 40), cuda=(1, 4, 16, 64)),
    ),
    "scaling-images": Case(
        "each block deleted alone, on ever more images at once",
        lesions.single_deletion,
        cifar("images", cpu=(1, 2, 4, 8, 32), cuda=(1, 4, 16, 64, 256)),
    ),
    "engine-single": Case(
        "the engine's own cost, each block deleted alone",
        partial(engine.measure, kind="single"),
        on_more_images(turns=7),
    ),
    "engine-memory-kept": Case(
        "the engine's own cost, each block deleted alone, where glibc does not give memory back between passes",
        partial(engine.measure, kind="single"),
        on_more_images(turns=7) | {"cuda": (), "quick": NETWORKS["quick"][:1]},
        environment={"MALLOC_TRIM_THRESHOLD_": "2000000000", "MALLOC_MMAP_THRESHOLD_": "1000000000"},
    ),
    "engine-deletions": Case(
        "the engine's own cost, 40 random subsets of 1 to 10 blocks deleted",
        partial(engine.measure, kind="deletions"),
        on_more_images(turns=5, draws=4),
    ),
    "proof": Case(
        "the share of the proof in an analysis of 1,000 images",
        proof.share,
        {
            "cpu": (
                Spec("cifar_preactresnet110", pixels=32, images=1000, timed=20),
                Spec("resnet50", pixels=64, images=1000, timed=40),
            ),
            "cuda": (
                Spec("cifar_preactresnet110", pixels=32, images=1000),
                Spec("resnet50", pixels=224, images=1000),
            ),
            "quick": NETWORKS["quick"][:1],
        },
    ),
    "training": Case(
        "an epoch of 4 mini-batches in which only some random blocks are trained",
        training.modules_per_batch,
        {size: (replace(specs[0], images=2 if size == "quick" else 64),) for size, specs in NETWORKS.items()},
    ),
    "start-up": Case(
        "processor time to start the command and to import the package",
        startup.measure,
        {"cpu": (replace(_NO_NETWORK, turns=9),), "cuda": (), "quick": (_NO_NETWORK,)},
    ),
}
