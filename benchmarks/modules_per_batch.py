"""A training step of K random blocks of 54, the others reduced to their shortcut, against a step of all of them.

``python benchmarks/modules_per_batch.py --images 64 --size 32``
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import timm
import torch
from timing import ratio, report, side_by_side

import resnet_lesion as rl


def main() -> None:
    """Time an epoch of a few mini-batches for several K."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="cifar_preactresnet110")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--batches", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = timm.create_model(args.model).to(device)
    n_blocks = len(rl.wrap(model))
    inputs = torch.randn(args.images, 3, args.size, args.size, device=device)
    data = [(inputs, torch.zeros(args.images, dtype=torch.int64, device=device))] * args.batches

    def epoch(k: int | None) -> Callable[[], object]:
        recipe = rl.Recipe(epochs=1, modules_per_batch=k, learning_rate=1e-3)
        return lambda: rl.train(model, data, recipe, show_progress=False)

    counts = sorted({1, n_blocks // 8, n_blocks // 4, 23 if n_blocks > 23 else n_blocks // 2, n_blocks})
    seconds = side_by_side({"all": epoch(None)} | {str(k): epoch(k) for k in counts}, args.repeats)
    report(
        "modules_per_batch",
        {
            "model": args.model,
            "n_blocks": n_blocks,
            "images": args.images,
            "size": args.size,
            "batches": args.batches,
            "seconds": seconds,
            "all / K, with the pass for the running statistics": {
                str(k): ratio(seconds, "all", str(k)) for k in counts
            },
        },
    )


if __name__ == "__main__":
    main()
