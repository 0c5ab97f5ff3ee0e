"""Blocks of ``timm.models.res2net``: Res2Net, Res2NeXt."""

from timm.models.res2net import Bottle2neck

from resnet_lesion import Branch, register_adapter
from resnet_lesion_timm._parts import last, projection


@register_adapter(Bottle2neck)
def bottle2neck(block: Bottle2neck) -> Branch:
    """``relu(downsample(x) + drop_path(se(bn3(...conv1(x)))))``; relu is one module that the branch uses too."""
    exit_ = last(block, "drop_path", "se", "bn3")
    return Branch(entry="conv1", exit=exit_, shortcut=projection(block, "downsample"), post="relu")
