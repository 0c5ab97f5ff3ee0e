"""Train a network like the embedded ``cifar_preactresnet110.digits`` and write its weights in half precision.

A minute or two on two CPU cores: ``python scripts/train_digits.py``. The embedded weights were made by an earlier
version of this script, with biases and norms decayed too and another schedule (PyTorch's ``OneCycleLR``), which
:func:`resnet_lesion.train` does not have; warm-up and a cosine are the closest to it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset, default_collate

import resnet_lesion as rl
from resnet_lesion.digits import load_digits

# in the current folder: the embedded file is another network, on which the documentation and the tests rest
OUT = Path("cifar_preactresnet110.digits.safetensors")


def shifted(samples: list[tuple[torch.Tensor, torch.Tensor]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Make a batch in which each image is shifted by up to one pixel in either direction, its edges repeated."""
    images, targets = default_collate(samples)
    padded = F.pad(images, (1, 1, 1, 1), mode="replicate")
    offsets = torch.randint(3, (len(images), 2)).tolist()
    moved = [image[:, y : y + 8, x : x + 8] for image, (y, x) in zip(padded, offsets, strict=True)]
    return torch.stack(moved), targets


def main() -> None:
    """Train, report and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=OUT, help=f"default: {OUT}")
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    model = timm.create_model("cifar_preactresnet110")
    images = TensorDataset(*load_digits("train"))
    batches = DataLoader(images, args.batch_size, shuffle=True, drop_last=True, collate_fn=shifted)
    recipe = rl.Recipe(epochs=args.epochs, warmup_epochs=args.epochs // 10, seed=args.seed)
    rl.train(model, batches, recipe, validation=load_digits("test"))

    half = {
        name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in model.state_dict().items()
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    save_file(half, args.out, {"resnet_lesion": rl.__name__})
    model.load_state_dict(half)
    inputs, targets = load_digits("test")
    with torch.no_grad():
        accuracy = float((model.eval()(inputs).argmax(1) == targets).double().mean())
    print(f"{args.out}: {args.out.stat().st_size / 2**20:.2f} MiB, test accuracy in half precision {accuracy:.4f}")


if __name__ == "__main__":
    main()
