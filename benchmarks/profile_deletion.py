"""Where the time of a single-deletion sweep goes, before and after ``rl.accelerate``, and what that gains.

Writes ``results/profile-single-deletion-MODEL-cpu.txt``: the operations that take longest, as ``torch.profiler`` counts
them, and seconds of all contenders, taking turns in one process.

``python benchmarks/profile_deletion.py --model resnet50 --images 4 --size 224``
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import timm
import torch
from torch import Tensor

import resnet_lesion as rl
from resnet_lesion.engines.chunking import Chunks
from resnet_lesion.engines.plan import Plan
from resnet_lesion.network.orders import DELETED, delete_each, whole

CUDA = torch.cuda.is_available()


def hook_loop(network: rl.ResidualNetwork, inputs: Tensor, targets: Tensor) -> list[int]:
    """Count what is right with no block deleted and with each, by one forward pass and one hook for each."""
    model = network.model
    with torch.inference_mode():
        correct = [int((model(inputs).argmax(1) == targets).sum())]
        for block in network.blocks:
            zero = block.part(block.branch.exit).register_forward_hook(lambda _m, _args, output: output.mul(0))
            correct.append(int((model(inputs).argmax(1) == targets).sum()))
            zero.remove()
    return correct


def sweep(network: rl.ResidualNetwork, inputs: Tensor, targets: Tensor) -> list[int]:
    """Count the same with the shared-prefix engine."""
    result = rl.Deletion(network).analyze((inputs, targets), show_progress=False)
    return [int(result.baseline_correct), *result.correct.values.tolist()]


def bare_blocks(network: rl.ResidualNetwork, inputs: Tensor) -> Callable[[], None]:
    """Return what runs the sweep's blocks on random inputs, as many images at once, and nothing between the blocks."""
    rows = np.vstack([whole(len(network)), delete_each(len(network))])
    trace, plan = network.trace(inputs[:1]), Plan(rows)
    n = len(next(Chunks(network, rows, trace).split(inputs))[0])
    stacked = [
        network.to_device(torch.randn(streams * n, *size))
        for streams, size in zip(plan.n_streams, trace.input_shapes, strict=False)
    ]

    def run() -> None:
        with network.isolated(), torch.no_grad():
            forwards = network.forwards()
            for _ in range(0, len(inputs), n):
                for block, forks, x in zip(network.blocks, plan.forks, stacked, strict=True):
                    for fork in forks:
                        forward = block.without_branch if fork.block == DELETED else forwards[fork.block]
                        for start, stop in fork.runs:
                            forward(x[start * n : stop * n])

    return run


def profile(run: Callable[[], object]) -> str:
    """Return the table of the operations that take longest."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    activities += [torch.profiler.ProfilerActivity.CUDA] if CUDA else []
    with torch.profiler.profile(activities=activities) as profiler:
        run()
    key = "self_cuda_time_total" if CUDA else "self_cpu_time_total"
    table = profiler.key_averages().table(sort_by=key, row_limit=12, max_name_column_width=32)
    return "\n".join(line.rstrip() for line in table.splitlines())


def seconds(contenders: dict[str, Callable[[], object]], turns: int) -> dict[str, list[float]]:
    """Time each once in every turn: of the processor, which is there for others too, or of the clock on a GPU."""
    clock = time.perf_counter if CUDA else time.process_time
    found: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(turns):
        for name, run in contenders.items():
            start = clock()
            run()
            if CUDA:
                torch.cuda.synchronize()
            found[name].append(clock() - start)
    return found


def processor() -> str:
    """Name what the run is on."""
    if CUDA:
        return torch.cuda.get_device_name()
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def main() -> None:
    """Check that all count the same, time, profile, and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    model = timm.create_model(args.model).eval().to("cuda" if CUDA else "cpu")
    for name, parameter in model.named_parameters():
        if name.endswith("weight") and not parameter.any():
            torch.nn.init.ones_(parameter)  # what timm starts at zero would be a branch without effect
    network, inputs = rl.wrap(model), torch.randn(args.images, 3, args.size, args.size)
    inputs = network.to_device(inputs)
    with torch.no_grad():
        targets = model(inputs).argmax(1)
    start = time.perf_counter()
    compiled = rl.accelerate(model, inputs, compile=True)
    sweep(compiled, inputs, targets)
    compile_seconds = time.perf_counter() - start
    accelerated = rl.accelerate(model, inputs)
    contenders: dict[str, Callable[[], object]] = {
        "hook loop, the model as it is": partial(hook_loop, network, inputs, targets),
        "sweep, the model as it is": partial(sweep, network, inputs, targets),
        "sweep, accelerated": partial(sweep, accelerated, inputs, targets),
        "sweep, accelerated and compiled": partial(sweep, compiled, inputs, targets),
        "its blocks alone, as they are": bare_blocks(network, inputs),
        "its blocks alone, accelerated": bare_blocks(accelerated, inputs),
    }
    counts = {name: run() for name, run in contenders.items()}
    expected = hook_loop(network, inputs, targets)
    assert all(found in (expected, None) for found in counts.values()), counts
    found = seconds(contenders, args.turns)
    loop = found["hook loop, the model as it is"]
    lines = [
        f"Single deletion of {args.model}, {args.images} images of {args.size} x {args.size}; all counts are equal.",
        f"{processor()}, {args.threads} threads, torch {torch.__version__}, timm {timm.__version__}.",
        f"Accelerated: {accelerated.acceleration}.",
        f"Compiling and the first sweep took {compile_seconds:.0f} s.",
        "",
        f"{'Medians of ' + str(args.turns) + ' turns':34}{'clock' if CUDA else 'processor'} seconds   hook loop / this",
        *(
            f"{name:34}{statistics.median(values):12.3f}"
            f"{statistics.median(a / b for a, b in zip(loop, values, strict=True)):19.2f}"
            for name, values in found.items()
        ),
        *(
            f"\n{name}\n{profile(contenders[name])}"
            for name in ("sweep, the model as it is", "sweep, accelerated", "sweep, accelerated and compiled")
        ),
    ]
    text = "\n".join(lines) + "\n"
    suffix = "gpu" if CUDA else "cpu"
    folder = Path(__file__).parent / "results"
    (folder / f"profile-single-deletion-{args.model}-{suffix}.txt").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
