"""Blocks of ``timm.models.fasternet``: FasterNet."""

from timm.models.fasternet import MLPBlock

from resnet_lesion import Branch, register_adapter


@register_adapter(MLPBlock)
def mlp_block(_block: MLPBlock) -> Branch:
    """``x + drop_path(layer_scale * mlp(spatial_mixing(x)))``."""
    return Branch(entry="spatial_mixing", exit="drop_path")
