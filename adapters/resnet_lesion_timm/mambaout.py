"""Blocks of ``timm.models.mambaout``: MambaOut."""

from timm.models.mambaout import GatedConvBlock

from resnet_lesion import Branch, register_adapter


@register_adapter(GatedConvBlock)
def gated_conv(_block: GatedConvBlock) -> Branch:
    """``x + drop_path(ls(...norm(x)))``."""
    return Branch(entry="norm", exit="drop_path")
