"""Blocks of ``timm.models.shvit``: SHViT."""

from timm.models.shvit import Residual

from resnet_lesion import Branch, register_adapter


@register_adapter(Residual)
def residual(_block: Residual) -> Branch:
    """``x + m(x)``."""
    return Branch(entry="m", exit="m")
