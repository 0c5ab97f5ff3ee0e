"""Delete each block alone: the shared-prefix engine against the loop with one hook and one forward pass per block.

``python benchmarks/single_deletion.py --model resnet50 --images 8 --size 224``
"""

from __future__ import annotations

import argparse

import timm
import torch
from timing import ratio, report, side_by_side
from torch import Tensor, nn

import resnet_lesion as rl


def naive_loop(model: nn.Module, network: rl.ResidualNetwork, inputs: Tensor, targets: Tensor) -> list[int]:
    """Count what is right with each block deleted, and with none, one forward pass each."""
    correct = []
    with torch.no_grad():
        correct.append(int((model(inputs).argmax(1) == targets).sum()))
        for block in network.blocks:
            exit_ = block.part(block.branch.exit)
            handle = exit_.register_forward_hook(lambda _module, _args, output: torch.zeros_like(output))
            correct.append(int((model(inputs).argmax(1) == targets).sum()))
            handle.remove()
    return correct


def main() -> None:
    """Time both and check that they count the same."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = timm.create_model(args.model, zero_init_last=False).eval().to(device)
    network, deletion = rl.wrap(model), rl.Deletion(model)
    inputs = torch.randn(args.images, 3, args.size, args.size, device=device)
    with torch.no_grad():
        targets = model(inputs).argmax(1)
    result = deletion.analyze((inputs, targets), show_progress=False)
    ours = [int(result.baseline_correct), *result.correct.values.tolist()]
    assert ours == naive_loop(model, network, inputs, targets)
    seconds = side_by_side(
        {
            "naive": lambda: naive_loop(model, network, inputs, targets),
            "resnet-lesion": lambda: deletion.analyze((inputs, targets), show_progress=False),
        },
        args.repeats,
    )
    report(
        f"single-deletion-{args.model}",
        {
            "images": args.images,
            "size": args.size,
            "block_evaluations": result.attrs["block_evaluations"],
            "naive_block_evaluations": len(network) ** 2,
            "seconds": seconds,
            "speedup": ratio(seconds, "naive", "resnet-lesion"),
        },
    )


if __name__ == "__main__":
    main()
