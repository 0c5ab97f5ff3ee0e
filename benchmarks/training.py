"""Training a few random blocks in each mini-batch, the others reduced to their shortcut, against training all."""

from __future__ import annotations

from collections.abc import Callable

import resnet_lesion as rl

from .networks import Spec, Workload, build
from .timing import compared, side_by_side

ALL = "all blocks"
_BATCHES = 4


def modules_per_batch(spec: Spec, device: str) -> dict[str, object]:
    """Train an epoch of a few mini-batches; with few blocks that includes the pass for the running statistics."""
    workload = Workload(spec, device)
    model = build(spec).to(device)
    n = len(workload.network)

    def epoch(k: int | None) -> Callable[[], object]:
        recipe = rl.Recipe(epochs=1, modules_per_batch=k, learning_rate=1e-3)
        return lambda: rl.train(model, [workload.data] * _BATCHES, recipe, show_progress=False)

    counts = sorted({1, n // 8, n // 4, 23 if n > 23 else n // 2, n} - {0})
    contenders = {ALL: epoch(None)} | {f"{k} blocks": epoch(k) for k in counts}
    for run in contenders.values():
        run()
    seconds = side_by_side(contenders, spec.turns)
    units = dict.fromkeys(contenders, _BATCHES)
    return {
        **workload.describe(),
        "blocks_in_a_batch": {name: n if name == ALL else int(name.split()[0]) for name in contenders},
        "contenders": compared(seconds, units, "batches", reference=ALL),
        "missing": {},
    }
