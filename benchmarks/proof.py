"""What share of an analysis goes into the proof on its first images: that the engine computes what the model does."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import numpy as np

import resnet_lesion as rl
from resnet_lesion.engines.proof import N_IMAGES, prove

from .networks import Spec, Workload
from .timing import compared, side_by_side, times_as_long

PROOF = "the proof"
SINGLE = "`Deletion(model).analyze`"
ONE_ROW = "`evaluate` with one row"
_BATCH = 100


def share(spec: Spec, device: str) -> dict[str, object]:
    """Measure it in the longest analysis by default, and in the shortest, whose passes are two for each image."""
    workload = Workload(spec, device)
    network, few = workload.network, min(spec.images, spec.timed or spec.images)
    # it deletes the first block, so that it shares no work with the whole network, which is always evaluated too
    row = np.array([[-1, *range(1, len(network))]])
    contenders = {
        PROOF: partial(prove, network, workload.inputs[:N_IMAGES]),
        SINGLE: partial(rl.Deletion(network).analyze, batches(workload, few), show_progress=False),
        ONE_ROW: partial(rl.evaluate, network, batches(workload, spec.images), row, show_progress=False),
    }
    contenders[PROOF]()  # the first run is slower
    seconds = side_by_side(contenders, spec.turns)
    found = compared(seconds, {PROOF: spec.images, SINGLE: few, ONE_ROW: spec.images}, "images", reference=PROOF)
    shares = {name: times_as_long(found, PROOF, name, "images") for name in (SINGLE, ONE_ROW)}
    return {**workload.describe(), "contenders": found, "share_of_proof": shares, "missing": {}}


def batches(workload: Workload, n: int) -> list[tuple[object, object]]:
    """Cut the first n images into batches, as a loader does."""
    inputs, targets = workload.data
    bounds = [*range(0, n, _BATCH), n]
    return [(inputs[start:stop], targets[start:stop]) for start, stop in pairwise(bounds)]
