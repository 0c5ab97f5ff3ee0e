"""Train the embedded network ``cifar_preactresnet110.digits`` and write its weights in half precision.

A minute on two CPU cores: ``python scripts/train_digits.py``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file
from torch.nn import functional as F
from tqdm import tqdm

import resnet_lesion  # registers the network with timm
from resnet_lesion.digits import load_digits

WEIGHTS = Path(__file__).parents[1] / "adapters/resnet_lesion_timm/weights/cifar_preactresnet110.digits.safetensors"


def shifted(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Shift each image by up to one pixel either way, repeating its edge."""
    padded = F.pad(images, (1, 1, 1, 1), mode="replicate")
    offsets = torch.randint(3, (len(images), 2), generator=generator).tolist()
    return torch.stack([image[:, y : y + 8, x : x + 8] for image, (y, x) in zip(padded, offsets, strict=True)])


def accuracy(model: torch.nn.Module) -> float:
    """Return the share of the test images that the model gets right."""
    inputs, targets = load_digits("test")
    with torch.no_grad():
        return float((model.eval()(inputs).argmax(1) == targets).double().mean())


def main() -> None:
    """Train, report and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    generator = torch.Generator().manual_seed(args.seed)
    model = timm.create_model("cifar_preactresnet110")
    inputs, targets = load_digits("train")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
    steps = len(inputs) // args.batch_size
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=args.epochs * steps)
    progress = tqdm(range(args.epochs), unit="epoch")
    for _ in progress:
        model.train()
        order = torch.randperm(len(inputs), generator=generator)[: steps * args.batch_size]
        for chosen in order.split(args.batch_size):
            loss = F.cross_entropy(model(shifted(inputs[chosen], generator)), targets[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        progress.set_postfix(loss=f"{loss.item():.3f}", test_accuracy=f"{accuracy(model):.4f}")

    half = {
        name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in model.state_dict().items()
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    save_file(half, args.out, {"resnet_lesion": resnet_lesion.__name__})
    model.load_state_dict(half)
    print(
        f"{args.out}: {args.out.stat().st_size / 2**20:.2f} MiB, test accuracy in half precision {accuracy(model):.4f}"
    )


if __name__ == "__main__":
    main()
