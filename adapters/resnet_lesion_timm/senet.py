"""Blocks of ``timm.models.senet``: the legacy SE-ResNet, SE-ResNeXt and SENet-154."""

from timm.models.senet import SEBottleneck, SEResNetBlock, SEResNetBottleneck, SEResNeXtBottleneck

from resnet_lesion import Branch, register_adapter
from resnet_lesion_timm._parts import projection


@register_adapter(SEBottleneck, SEResNetBlock, SEResNetBottleneck, SEResNeXtBottleneck)
def squeeze_and_excitation(block: SEBottleneck | SEResNetBlock | SEResNetBottleneck | SEResNeXtBottleneck) -> Branch:
    """``relu(downsample(x) + se_module(...conv1(x)))``; relu is one module that the branch uses too."""
    return Branch(entry="conv1", exit="se_module", shortcut=projection(block, "downsample"), post="relu")
