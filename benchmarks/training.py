"""Training a few random blocks in each mini-batch, the others reduced to their shortcut, beside training all."""

from __future__ import annotations

from collections.abc import Callable

from networks import Subject, build
from timing import compared, side_by_side

import resnet_lesion as rl

ALL = "all blocks"
_BATCHES = 4


def modules_per_batch(subject: Subject) -> dict[str, object]:
    """Train an epoch of a few mini-batches; with few blocks that includes the pass for the running statistics."""
    model = build(subject.spec).to(subject.device)
    n = len(subject.network)

    def epoch(k: int | None) -> Callable[[], object]:
        recipe = rl.Recipe(epochs=1, modules_per_batch=k, learning_rate=1e-3)
        return lambda: rl.train(model, [subject.data] * _BATCHES, recipe, show_progress=False)

    counts = sorted({1, n // 8, n // 4, 23 if n > 23 else n // 2, n} - {0})
    contenders = {ALL: epoch(None)} | {f"{k} blocks": epoch(k) for k in counts}
    for run in contenders.values():
        run()
    seconds = side_by_side(contenders, subject.spec.turns)
    units = dict.fromkeys(contenders, _BATCHES)
    return {
        **subject.describe(),
        "blocks_in_a_batch": {name: n if name == ALL else int(name.split()[0]) for name in contenders},
        "contenders": compared(seconds, units, "batches", reference=ALL),
        "missing": {},
    }
