"""Blocks of ``timm.models.inception_resnet_v2``: Inception-ResNet-v2."""

from timm.models.inception_resnet_v2 import Block8, Block17, Block35
from torch import Tensor

from resnet_lesion import Branch, register_adapter


@register_adapter(Block8, Block17, Block35)
def inception(block: Block8 | Block17 | Block35) -> Branch:
    """``act(x + scale * conv2d(cat(branch0(x), branch1(x), ...)))``; the network's last block has no act."""

    def scale(residual: Tensor) -> Tensor:
        return residual * block.scale

    entries = ("branch0", "branch1", "branch2") if isinstance(block, Block35) else ("branch0", "branch1")
    if isinstance(block, Block8):
        return Branch(entries, exit="conv2d", scale=scale, post=None if block.relu is None else "relu")
    return Branch(entries, exit="conv2d", scale=scale, post="act")
