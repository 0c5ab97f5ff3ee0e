"""What the engine itself costs: block evaluations against the lower bound, its overhead, its throughput.

The overhead is the time of an analysis against that of the same block forwards on the same stacked batches with nothing
around them: no forking and joining of streams, no counting, no Dataset. The throughput is in floating-point operations
per second, so that blocks of different sizes count by their work, against that of the model's own forward pass at the
batch size where it is fastest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import resnet_lesion as rl
from resnet_lesion.blocks.block import replaced_forwards

from .lesions import Kind, WrongResultError, analysis, rows_of
from .networks import Spec, Workload
from .timing import OURS, compared, side_by_side, times_as_long

BARE, PLAIN = "the bare block computations", "plain forward passes"
UNIT = "floating_point_operations"
_LARGEST_BATCH = {"cpu": 32, "cuda": 2048}
# plain passes are timed for about this fraction of the engine's work
_PLAIN_SHARE = 0.25

Shape = tuple[int, ...]
Level = Counter[int]
"""At one position, how many streams pass through each block; -1 for none."""


def measure(spec: Spec, device: str, kind: Kind) -> dict[str, object]:
    """Measure the engine on one kind of lesions."""
    workload = Workload(spec, device)
    network, analyze = workload.network, analysis(workload, kind)
    sizes = batch_sizes(workload, analyze)
    result = analyze(network)
    rows = rows_of(result)
    lower_bound = evaluations(levels(rows))
    if result.attrs["block_evaluations"] < lower_bound:
        raise WrongResultError(
            f"expected at least {lower_bound} block evaluations, one for each distinct pair of a prefix and a block, "
            f"got {result.attrs['block_evaluations']}. Fix what counts them."
        )
    # the engine always evaluates the whole network too
    computed = levels(np.vstack([np.arange(len(network)), rows]))
    batch = fastest_batch(workload)
    images = workload.inputs[:1].repeat(batch, 1, 1, 1)
    work = flops(workload)
    done = spec.images * work_of(computed, work)
    passes = max(1, round(_PLAIN_SHARE * done / (batch * sum(work))))
    contenders = {
        OURS: partial(analyze, network),
        BARE: bare_computations(network, workload.inputs, computed, sizes),
        PLAIN: lambda: [network.model(images) for _ in range(passes)],
    }
    with torch.no_grad():
        for run in contenders.values():
            run()
        seconds = side_by_side(contenders, spec.turns)
    found = compared(seconds, {OURS: done, BARE: done, PLAIN: passes * batch * sum(work)}, UNIT)
    return {
        **workload.describe(),
        "kind": kind,
        "lesions": len(rows),
        "block_evaluations": result.attrs["block_evaluations"],
        "lower_bound": lower_bound,
        "naive_block_evaluations": result.attrs["naive_block_evaluations"],
        "images_in_a_pass": sizes,
        "contenders": found,
        "overhead": times_as_long(found, OURS, BARE, UNIT) - 1,
        "fastest_batch": batch,
        "share_of_plain_throughput": times_as_long(found, PLAIN, OURS, UNIT),
        "missing": {},
    }


def levels(rows: np.ndarray) -> list[Level]:
    """Count the streams at each position from the sets of prefixes, one position after another."""
    prefixes = [{tuple(row[: i + 1]) for row in rows.tolist()} for i in range(rows.shape[1])]
    return [Counter(prefix[-1] for prefix in level) for level in prefixes]


def evaluations(computed: list[Level]) -> int:
    """Count the blocks that run: the least that an exact evaluation can do."""
    return sum(streams for level in computed for block, streams in level.items() if block >= 0)


def batch_sizes(workload: Workload, analyze: Callable[..., object]) -> list[int]:
    """Record how many images the engine puts into each of its passes."""
    seen: list[int] = []
    handle = workload.network.model.register_forward_pre_hook(lambda _model, args: seen.append(len(args[0])))
    try:
        analyze(workload.network)
    finally:
        handle.remove()
    sizes = seen[3:]  # the network was proved in the first three passes
    if sum(sizes) != workload.spec.images:
        raise RuntimeError(
            f"expected passes over {workload.spec.images} images together, got {sizes}: memory was short and the "
            "lesions were split. Time fewer images."
        )
    return sizes


def bare_computations(
    network: rl.ResidualNetwork, inputs: Tensor, computed: list[Level], sizes: list[int]
) -> Callable[[], None]:
    """Return what runs the same forwards on batches of the same sizes, with nothing around them.

    A block is fed the output of the one before it, which is then in the caches as in any forward pass. Since a batch
    can be cut but not extended without a copy, blocks of the same shapes run from the largest batch to the smallest.
    """
    trace, forwards = network.trace(inputs[:1]), network.forwards()
    shapes = [*zip(trace.input_shapes, trace.output_shapes, strict=True)]
    streams = [level.total() for level in computed]
    calls: dict[tuple[Shape, Shape], list[tuple[int, Callable[[Tensor], Tensor]]]] = {pair: [] for pair in shapes}
    most = Counter[Shape]()
    for i, (level, (before, after)) in enumerate(zip(computed, shapes, strict=True)):
        for block, count in level.items():
            forward = network.blocks[i].without_branch if block == -1 else forwards[block]
            calls[before, after].append((count, forward))
        most[before], most[after] = max(most[before], *level.values()), max(most[after], streams[i])
    for of in calls.values():
        of.sort(key=lambda call: call[0], reverse=True)
    ready = {shape: torch.randn(count * max(sizes), *shape, device=inputs.device) for shape, count in most.items()}

    def hands_on(i: int, n: int) -> Callable[[Tensor], Tensor]:
        return lambda _: ready[shapes[i][1]][: n * streams[i]]

    def run() -> None:
        for start, stop in pairwise(np.cumsum([0, *sizes]).tolist()):
            n = stop - start
            for (before, after), of in calls.items():
                x = ready[before]
                for count, forward in of:
                    y = forward(x[: n * count])
                    x = y if before == after else x
            # what the model does before, between and after its blocks
            with replaced_forwards({block.module: hands_on(i, n) for i, block in enumerate(network.blocks)}):
                network.model(inputs[start:stop])

    return run


@torch.no_grad()
def fastest_batch(workload: Workload) -> int:
    """Find the batch size at which the model's own forward pass does the most images a second, among powers of two."""
    best, best_rate, batch = 1, 0.0, 1
    while batch <= min(4 * best, _LARGEST_BATCH[workload.device]):  # until two larger ones in a row are no better
        images = workload.inputs[:1].repeat(batch, 1, 1, 1)
        seconds = side_by_side({PLAIN: partial(workload.network.model, images)}, turns=3)
        rate = batch / min(seconds[PLAIN])
        if rate > best_rate:
            best, best_rate = batch, rate
        batch *= 2
    return best


def flops(workload: Workload) -> list[int]:
    """Count one image's floating-point operations (convolutions and matrix products) in each block; last, elsewhere."""
    model = workload.network.model
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(workload.inputs[:1])
    found = {name: sum(of.values()) for name, of in counter.get_flop_counts().items()}
    blocks = [found[f"{type(model).__name__}.{layer}"] for layer in workload.network.layers]
    return [*blocks, found["Global"] - sum(blocks)]


def work_of(computed: list[Level], work: list[int]) -> int:
    """Add up one image's floating-point operations; deleted blocks' shortcuts are left out, the head is not."""
    *blocks, elsewhere = work
    return elsewhere + sum(
        blocks[block] * streams for level in computed for block, streams in level.items() if block >= 0
    )
