"""The networks that are timed: random weights with no dead branch, and images for them."""

from __future__ import annotations

from dataclasses import dataclass

import timm
import torch
from torch import Tensor, nn

import resnet_lesion as rl
from resnet_lesion_timm.cifar import CifarResNetV2

# enough for the statistics of a batch norm whose feature map is one pixel
_CALIBRATION_IMAGES = 8
_LOGIT_SIZE = 3.0
_GAIN = 0.2


@dataclass(frozen=True)
class Spec:
    """A network, and how much is done with it.

    Attributes:
        model: timm's name of it.
        pixels: Height and width of the images.
        images: How many of them.
        draws: Number of random lesions of each of ten sizes, or of paths of each length.
        timed: Number of lesions or paths that each alternative is timed on; the engine does all. Where the proof is
            timed, number of images that each block is deleted on. None for all.
        turns: Number of times that each contender is timed.
        stage_blocks: Blocks in each of the three stages of a CIFAR network, if not as many as the model's name says.
    """

    model: str
    pixels: int
    images: int
    draws: int = 20
    timed: int | None = None
    turns: int = 3
    stage_blocks: int | None = None


class Workload:
    """A network ready to be timed on a device.

    Attributes:
        spec: What it was made from.
        network: The network, in eval mode.
        inputs: (N, 3, pixels, pixels) random images.
        targets: (N,) the whole network's predictions, so that a lesion can only lose images.
    """

    def __init__(self, spec: Spec, device: str) -> None:
        torch.manual_seed(0)
        self.spec, self.device = spec, device
        model = build(spec).to(device)
        shape = (3, spec.pixels, spec.pixels)
        calibrate(model, torch.randn(_CALIBRATION_IMAGES, *shape).to(device))
        self.network = rl.wrap(model)
        self.inputs = torch.randn(spec.images, *shape).to(device)
        with torch.no_grad():
            self.targets: Tensor = self.network.model(self.inputs).argmax(1)

    @property
    def data(self) -> tuple[Tensor, Tensor]:
        """The images and their classes."""
        return self.inputs, self.targets

    @property
    def mistaken(self) -> tuple[Tensor, Tensor]:
        """The images with a wrong class: for one predicted with certainty, the loss's gradient is only rounding."""
        return self.inputs, (self.targets + 1) % self.network.model.num_classes

    def describe(self) -> dict[str, object]:
        """Say what is timed."""
        return {
            "model": self.spec.model if self.spec.stage_blocks is None else "pre-activation CIFAR network",
            "n_blocks": len(self.network),
            "images": self.spec.images,
            "pixels": self.spec.pixels,
        }


@torch.no_grad()
def build(spec: Spec) -> nn.Module:
    """Build the network with branches that are neither zero nor too strong.

    By timm's default the last weight of each branch is zero, which leaves nothing to delete. With its usual size, 66
    blocks in a row amplify a difference in rounding so much that no two computations agree.
    """
    if spec.stage_blocks is None:
        model = timm.create_model(spec.model, zero_init_last=False)
    else:
        model = CifarResNetV2(layers=(spec.stage_blocks,) * 3, zero_init_last=False)
    for block in model.modules():
        if hasattr(block, "zero_init_last"):
            before = [parameter.clone() for parameter in block.parameters()]
            block.zero_init_last()
            for parameter, value in zip(block.parameters(), before, strict=True):
                if not parameter.any():
                    parameter.copy_(_GAIN * value)
    return model


@torch.no_grad()
def calibrate(model: nn.Module, images: Tensor) -> None:
    """Make the network's answers depend on its images and on each of its blocks.

    Batch norms get the statistics of these images: with timm's zeros and ones, each block doubles the variance. The
    classifier is centred, so that not all images are of one class, and scaled to logits of a usual size.
    """
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.reset_running_stats()
            module.momentum = None  # a plain average, here over one batch
    model.train()
    model(images)
    logits = model.eval()(images)
    classifier, centre = model.get_classifier(), logits.mean(0)
    scale = _LOGIT_SIZE / (logits - centre).std()
    classifier.weight *= scale
    classifier.bias.copy_(scale * (classifier.bias - centre))
