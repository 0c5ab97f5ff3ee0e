"""Blocks of ``timm.models.convnext``: ConvNeXt, ConvNeXt V2."""

from timm.models.convnext import ConvNeXtBlock

from resnet_lesion import Branch, register_adapter
from resnet_lesion_timm._parts import projection


@register_adapter(ConvNeXtBlock)
def residual_block(block: ConvNeXtBlock) -> Branch:
    """``shortcut(x) + drop_path(gamma * ...conv_dw(x))``."""
    return Branch(entry="conv_dw", exit="drop_path", shortcut=projection(block, "shortcut"))
