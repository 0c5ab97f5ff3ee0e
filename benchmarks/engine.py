"""What the engine itself costs: block evaluations beside the lower bound, its overhead, its throughput.

The overhead is the time of an analysis beside that of the same block forwards on the same stacked batches with nothing
round them: no forking and joining of streams, no counting, no Dataset. The throughput is in floating-point operations
per second, so that blocks of different sizes count by their work, beside that of the model's own forward pass at the
batch size where it is fastest.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from itertools import pairwise

import numpy as np
import torch
from lesions import Kind, WrongResultError, analysis, rows_of
from networks import Subject
from timing import OURS, compared, side_by_side, synchronize, times_as_long
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from resnet_lesion.block import replaced_forwards

BARE, PLAIN = "the bare block computations", "plain forward passes"
_LARGEST_BATCH = {"cpu": 64, "cuda": 2048}
_PASSES = 4
# a larger batch must be faster by this much for the search to go on
_FASTER = 1.02

Level = Counter[int]
"""At one position, how many streams go through each block: in how many different states the rows arrive there."""


def measure(subject: Subject, kind: Kind) -> dict[str, object]:
    """Measure the engine on one kind of lesions."""
    network, analyze = subject.network, analysis(subject, kind)
    pieces = batch_sizes(subject, analyze)
    result = analyze(network)
    rows = rows_of(result)
    lower_bound = evaluations(levels(rows))
    if result.attrs["block_evaluations"] < lower_bound:
        raise WrongResultError(
            f"expected at least {lower_bound} block evaluations, one for each distinct pair of a prefix and a block, "
            f"got {result.attrs['block_evaluations']}. Mend what counts them."
        )
    # the engine always evaluates the whole network too
    computed = levels(np.vstack([np.arange(len(network)), rows]))
    batch = fastest_batch(subject)
    images = subject.inputs[:1].repeat(batch, 1, 1, 1)
    work = flops(subject)
    done = subject.spec.images * work_of(computed, work)
    bare = bare_computations(subject, computed, pieces)
    contenders = {
        OURS: partial(analyze, network),
        BARE: bare,
        PLAIN: lambda: [network.model(images) for _ in range(_PASSES)],
    }
    with torch.no_grad():
        for run in contenders.values():
            run()
        seconds = side_by_side(contenders, subject.spec.turns)
    of_plain = _PASSES * batch * sum(work)
    unit = "floating_point_operations"
    found = compared(seconds, {OURS: done, BARE: done, PLAIN: of_plain}, unit)
    return {
        **subject.describe(),
        "kind": kind,
        "lesions": len(rows),
        "block_evaluations": result.attrs["block_evaluations"],
        "lower_bound": lower_bound,
        "naive_block_evaluations": result.attrs["naive_block_evaluations"],
        "images_in_a_pass": pieces,
        "contenders": found,
        "overhead": times_as_long(found, OURS, BARE, unit) - 1,
        "fastest_batch": batch,
        "share_of_plain_throughput": times_as_long(found, PLAIN, OURS, unit),
        "missing": {},
    }


def levels(rows: np.ndarray) -> list[Level]:
    """Count the streams at each position from the sets of prefixes, one position after another."""
    prefixes = [{tuple(row[: i + 1]) for row in rows.tolist()} for i in range(rows.shape[1])]
    return [Counter(prefix[-1] for prefix in level) for level in prefixes]


def evaluations(computed: list[Level]) -> int:
    """Count the blocks that run: the least that an exact evaluation can do."""
    return sum(streams for level in computed for block, streams in level.items() if block >= 0)


def batch_sizes(subject: Subject, analyze: Callable[..., object]) -> list[int]:
    """Note how many images the engine puts into each of its passes."""
    seen: list[int] = []
    handle = subject.network.model.register_forward_pre_hook(lambda _model, args: seen.append(len(args[0])))
    try:
        analyze(subject.network)
    finally:
        handle.remove()
    pieces = seen[1:]  # the first pass looks at the shapes
    if sum(pieces) != subject.spec.images:
        raise WrongResultError(
            f"expected passes over {subject.spec.images} images together, got {pieces}: memory was short and the "
            "lesions were split. Time fewer images."
        )
    return pieces


def bare_computations(subject: Subject, computed: list[Level], pieces: list[int]) -> Callable[[], None]:
    """Return what runs the same forwards on stacked batches that lie ready."""
    network = subject.network
    trace = network.trace(subject.inputs[:1])
    most = max(pieces)
    streams = [1, *(level.total() for level in computed)]
    shapes = [*trace.input_shapes, trace.output_shapes[-1]]
    ready: dict[tuple[int, ...], Tensor] = {}
    for shape in set(shapes):
        largest = most * max(count for count, other in zip(streams, shapes, strict=True) if other == shape)
        ready[shape] = torch.randn(largest, *shape, device=subject.inputs.device)
    forwards = network.forwards()

    def at(i: int, n: int) -> Callable[[Tensor], Tensor]:
        own = network.blocks[i]

        def forward(_x: Tensor) -> Tensor:
            for block, count in sorted(computed[i].items()):
                (own.without_branch if block == -1 else forwards[block])(ready[shapes[i]][: count * n])
            return ready[shapes[i + 1]][: streams[i + 1] * n]

        return forward

    def run() -> None:
        for start, stop in pairwise(np.cumsum([0, *pieces]).tolist()):
            with replaced_forwards({block.module: at(i, stop - start) for i, block in enumerate(network.blocks)}):
                network.model(subject.inputs[start:stop])

    return run


@torch.no_grad()
def fastest_batch(subject: Subject) -> int:
    """Find the batch size at which the model's own forward pass does most images a second, among powers of two."""
    best, best_rate, batch = 1, 0.0, 1
    while batch <= _LARGEST_BATCH[subject.device]:
        images = subject.inputs[:1].repeat(batch, 1, 1, 1)
        rate = batch / min(_seconds(subject, images) for _ in range(3))
        if rate < best_rate * _FASTER:
            break
        best, best_rate, batch = batch, rate, 2 * batch
    return best


def flops(subject: Subject) -> list[int]:
    """Count one image's floating-point operations (convolutions and matrix products) in each block; last, elsewhere."""
    model = subject.network.model
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(subject.inputs[:1])
    found = {name: sum(of.values()) for name, of in counter.get_flop_counts().items()}
    blocks = [found[f"{type(model).__name__}.{layer}"] for layer in subject.network.layers]
    return [*blocks, found["Global"] - sum(blocks)]


def work_of(computed: list[Level], work: list[int]) -> int:
    """Add up one image's floating-point operations; deleted blocks' shortcuts are left out, the head is not."""
    *blocks, elsewhere = work
    return elsewhere + sum(
        blocks[block] * streams for level in computed for block, streams in level.items() if block >= 0
    )


def _seconds(subject: Subject, images: Tensor) -> float:
    synchronize()
    start = time.perf_counter()
    subject.network.model(images)
    synchronize()
    return time.perf_counter() - start
