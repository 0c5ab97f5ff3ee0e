"""Blocks of ``timm.models.resnetv2``: pre-activation ResNets, BiT, and the post-activation ones of ViT hybrids."""

from timm.models.resnetv2 import Bottleneck, PreActBasic, PreActBottleneck

from resnet_lesion import Branch, register_adapter


@register_adapter(PreActBasic, PreActBottleneck)
def pre_activation(block: PreActBasic | PreActBottleneck) -> Branch:
    """``x + conv(...norm1(x))``, or ``downsample(norm1(x)) + conv(...norm1(x))``: the projection reads the norm."""
    if block.downsample is None:
        return Branch(entry="norm1", exit="drop_path")
    return Branch(entry="conv1", exit="drop_path", shortcut="downsample", preact="norm1")


@register_adapter(Bottleneck)
def bottleneck(block: Bottleneck) -> Branch:
    """``act3(downsample(x) + drop_path(norm3(...conv1(x))))``."""
    shortcut = "downsample" if block.downsample is not None else None
    return Branch(entry="conv1", exit="drop_path", shortcut=shortcut, post="act3")
