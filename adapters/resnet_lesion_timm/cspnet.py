"""Blocks of ``timm.models.cspnet``: CSPNet, DarkNet. Their cross stages are not residual; the blocks in them are."""

from timm.models.cspnet import BottleneckBlock, DarkBlock, EdgeBlock

from resnet_lesion import Branch, register_adapter


@register_adapter(BottleneckBlock)
def bottleneck(_block: BottleneckBlock) -> Branch:
    """``act3(x + drop_path(...conv1(x)))``."""
    return Branch(entry="conv1", exit="drop_path", post="act3")


@register_adapter(DarkBlock, EdgeBlock)
def dark(_block: DarkBlock | EdgeBlock) -> Branch:
    """``x + drop_path(...conv1(x))``."""
    return Branch(entry="conv1", exit="drop_path")
