"""Blocks of ``timm.models.sknet``: SKNet, SK-ResNet."""

from timm.models.sknet import SelectiveKernelBasic, SelectiveKernelBottleneck

from resnet_lesion import Branch, register_adapter
from resnet_lesion_timm._parts import last, projection


@register_adapter(SelectiveKernelBasic)
def basic(block: SelectiveKernelBasic) -> Branch:
    """``act(downsample(x) + drop_path(se(conv2(conv1(x)))))``."""
    exit_ = last(block, "drop_path", "se", "conv2")
    return Branch(entry="conv1", exit=exit_, shortcut=projection(block, "downsample"), post="act")


@register_adapter(SelectiveKernelBottleneck)
def bottleneck(block: SelectiveKernelBottleneck) -> Branch:
    """``act(downsample(x) + drop_path(se(conv3(conv2(conv1(x))))))``."""
    exit_ = last(block, "drop_path", "se", "conv3")
    return Branch(entry="conv1", exit=exit_, shortcut=projection(block, "downsample"), post="act")
