"""Blocks of ``timm.models.regnet``: RegNetX, RegNetY, RegNetZ, RegNetV."""

from timm.models.regnet import Bottleneck, PreBottleneck

from resnet_lesion import Branch, register_adapter
from resnet_lesion_timm._parts import projection


@register_adapter(Bottleneck)
def bottleneck(block: Bottleneck) -> Branch | None:
    """``act3(downsample(x) + drop_path(...conv1(x)))``; downsample may be an identity, or missing with the skip."""
    if block.downsample is None:
        return None
    return Branch(entry="conv1", exit="drop_path", shortcut=projection(block, "downsample"), post="act3")


@register_adapter(PreBottleneck)
def pre_bottleneck(block: PreBottleneck) -> Branch | None:
    """``downsample(norm1(x)) + drop_path(...conv1(norm1(x)))``: the norm is on the skip, even an identity."""
    if block.downsample is None:
        return None
    return Branch(entry="conv1", exit="drop_path", shortcut="downsample", preact="norm1")
