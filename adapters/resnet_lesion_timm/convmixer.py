"""Blocks of ``timm.models.convmixer``: ConvMixer."""

from timm.models.convmixer import Residual

from resnet_lesion import Branch, register_adapter


@register_adapter(Residual)
def residual(_block: Residual) -> Branch:
    """``x + fn(x)``."""
    return Branch(entry="fn", exit="fn")
