"""Path gradients of the 54-block network against what a user would write.

Sampled: one forward pass and one routed backward pass per path. Exact: against plain forward and backward passes, of
which all 55 path lengths together should cost less than 60.

``python benchmarks/path_gradients.py --images 8 --size 32``
"""

from __future__ import annotations

import argparse
import resource
import sys

import numpy as np
import timm
import torch
from timing import ratio, report, side_by_side
from torch import Tensor, nn
from torch.nn import functional as F

import resnet_lesion as rl


def user_loop(
    model: nn.Module, network: rl.ResidualNetwork, inputs: Tensor, targets: Tensor, paths: np.ndarray
) -> list:
    """Measure the mean norm of each path's gradient with a forward and a backward pass for each."""
    norms = []
    for path in paths:
        leaf = inputs.clone().requires_grad_()
        with network.routed(path):
            loss = F.cross_entropy(model(leaf), targets, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, leaf)
        norms.append(float(gradient.flatten(1).norm(dim=1).mean()))
    return norms


def plain_pass(model: nn.Module, inputs: Tensor, targets: Tensor) -> None:
    """Run one forward and one backward pass to the input."""
    leaf = inputs.clone().requires_grad_()
    torch.autograd.grad(F.cross_entropy(model(leaf), targets), leaf)


def main() -> None:
    """Time, compare the norms, and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--draws", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = timm.create_model("cifar_preactresnet110", pretrained=True).eval().to(device)
    network, gradient = rl.wrap(model), rl.PathGradient(model)
    inputs = torch.randn(args.images, 3, args.size, args.size, device=device)
    targets = torch.randint(10, (args.images,), device=device)
    data = (inputs, targets)

    def sample() -> object:
        return gradient.analyze(data, method="sample", n_draws=args.draws, show_progress=False)

    result = sample()
    paths = result.path.values.reshape(-1, len(network))
    expected = user_loop(model, network, inputs, targets, paths)
    normal = np.array(expected) > 1e-15  # below, squares of a float32 norm lose digits
    np.testing.assert_allclose(result.gradient_norm.values.reshape(-1)[normal], np.array(expected)[normal], rtol=1e-2)
    seconds = side_by_side(
        {
            "loop of routed passes": lambda: user_loop(model, network, inputs, targets, paths),
            "sampled": sample,
            "10 plain passes": lambda: [plain_pass(model, inputs, targets) for _ in range(10)],
            "exact": lambda: gradient.analyze(data, method="exact", show_progress=False),
        },
        args.repeats,
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    report(
        "path-gradients",
        {
            "images": args.images,
            "size": args.size,
            "n_paths": len(paths),
            "seconds": seconds,
            "sampled_speedup": ratio(seconds, "loop of routed passes", "sampled"),
            "exact_in_plain_passes": 10 * ratio(seconds, "exact", "10 plain passes"),
            "peak_resident_bytes": torch.cuda.max_memory_allocated() if device == "cuda" else peak,
        },
    )


if __name__ == "__main__":
    main()
