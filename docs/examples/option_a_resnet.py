"""Single deletions in a CIFAR ResNet that timm does not have: option-A shortcuts, ReLUs as function calls.

    python docs/examples/option_a_resnet.py resnet20.th images/test --out resnet20.nc

takes weights of https://github.com/akamaster/pytorch_resnet_cifar10 and a folder with a subfolder of images per class.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

import resnet_lesion as rl


class OptionABlock(nn.Module):
    """``relu(shortcut(x) + bn2(conv2(relu(bn1(conv1(x))))))``, of He et al. 2015 (arXiv:1512.03385), section 3.3."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(c_out)
        self.stride, self.new_channels = stride, c_out - c_in

    def shortcut(self, x: Tensor) -> Tensor:
        """Every other pixel, and zeros for the new channels: a shortcut without parameters, so without a module."""
        half = self.new_channels // 2
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, half, half))

    def forward(self, x: Tensor) -> Tensor:
        """Add the branch to the shortcut."""
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class CifarResNet(nn.Module):
    """Three stages of such blocks, 16, 32 and 64 channels wide."""

    def __init__(self, blocks_per_stage: int, num_classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = self._stage(16, 16, 1, blocks_per_stage)
        self.layer2 = self._stage(16, 32, 2, blocks_per_stage)
        self.layer3 = self._stage(32, 64, 2, blocks_per_stage)
        self.linear = nn.Linear(64, num_classes)

    @staticmethod
    def _stage(c_in: int, c_out: int, stride: int, n: int) -> nn.Sequential:
        return nn.Sequential(OptionABlock(c_in, c_out, stride), *(OptionABlock(c_out, c_out, 1) for _ in range(n - 1)))

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits, (N, num_classes)."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))


@rl.register_adapter(OptionABlock)
def option_a_block(block: OptionABlock) -> rl.Branch:
    """Its ReLU and its shortcut are functions."""
    same_shape = block.stride == 1 and block.new_channels == 0
    return rl.Branch(
        entry="conv1",
        exit="bn2",
        shortcut=None if same_shape else block.shortcut,
        post=F.relu,
    )


def load(weights: Path) -> CifarResNet:
    """Build the network that the weights belong to."""
    state = torch.load(weights, map_location="cpu", weights_only=True)["state_dict"]
    state = {key.removeprefix("module."): value for key, value in state.items()}
    model = CifarResNet(blocks_per_stage=len({key.split(".")[1] for key in state if key.startswith("layer1.")}))
    model.load_state_dict(state)
    return model.eval()


def images(folder: Path) -> DataLoader[tuple[Tensor, Tensor]]:
    """Read the images as the network expects them."""
    normalize = transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    dataset = ImageFolder(folder, transforms.Compose([transforms.ToTensor(), normalize]))
    return DataLoader(dataset, batch_size=250)


def main() -> None:
    """Delete each block alone and save what it does."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path, metavar="WEIGHTS.th")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="a subfolder of images per class")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.nc")
    args = parser.parse_args()
    network, data = rl.wrap(load(args.weights)), images(args.folder)
    print(network, "deviates by", network.verify(next(iter(data))[0]))
    result = rl.Deletion(network).analyze(data)
    result.attrs["model"] = args.weights.name
    rl.save(result, args.out)
    print(result[["error", "error_low", "error_high"]].to_dataframe().round(4))


if __name__ == "__main__":
    main()
