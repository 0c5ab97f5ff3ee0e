"""Blocks of ``timm.models.focalnet``: FocalNet."""

from __future__ import annotations

from timm.models.focalnet import FocalNetBlock

from resnet_lesion import Chain, Residual, register_adapter


@register_adapter(FocalNetBlock)
def focal(block: FocalNetBlock) -> Chain:
    """``x + drop_path1(ls1(norm1_post(modulation(norm1(x)))))``, then the same with 2 and mlp."""
    return Chain(
        block,
        {
            "modulation": Residual(block.norm1, block.modulation, block.norm1_post, block.ls1, block.drop_path1),
            "mlp": Residual(block.norm2, block.mlp, block.norm2_post, block.ls2, block.drop_path2),
        },
    )
