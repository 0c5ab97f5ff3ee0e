"""Blocks of ``timm.models.resnet``: ResNet, ResNeXt, SE-ResNet, ECA-ResNet, ResNet-RS, ..."""

from timm.models.resnet import BasicBlock, Bottleneck

from resnet_lesion import Branch, register_adapter
from resnet_lesion_timm._parts import last, projection


@register_adapter(BasicBlock)
def basic_block(block: BasicBlock) -> Branch:
    """``act2(downsample(x) + drop_path(se(bn2(...conv1(x)))))``."""
    exit_ = last(block, "drop_path", "se", "bn2")
    return Branch(entry="conv1", exit=exit_, shortcut=projection(block, "downsample"), post="act2")


@register_adapter(Bottleneck)
def bottleneck(block: Bottleneck) -> Branch:
    """``act3(downsample(x) + drop_path(se(bn3(...conv1(x)))))``."""
    exit_ = last(block, "drop_path", "se", "bn3")
    return Branch(entry="conv1", exit=exit_, shortcut=projection(block, "downsample"), post="act3")
