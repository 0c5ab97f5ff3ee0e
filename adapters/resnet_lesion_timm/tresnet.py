"""Blocks of ``timm.models.tresnet``: TResNet."""

from timm.models.tresnet import BasicBlock, Bottleneck

from resnet_lesion import Branch, register_adapter
from resnet_lesion_timm._parts import projection


@register_adapter(BasicBlock, Bottleneck)
def residual_block(block: BasicBlock | Bottleneck) -> Branch:
    """``act(downsample(x) + drop_path(...conv1(x)))``."""
    return Branch(entry="conv1", exit="drop_path", shortcut=projection(block, "downsample"), post="act")
