"""Blocks of ``timm.models.convit``: ConViT."""

from __future__ import annotations

from timm.models.convit import Block

from resnet_lesion import Chain, Residual, register_adapter


@register_adapter(Block)
def pre_norm(block: Block) -> Chain:
    """``x + drop_path(attn(norm1(x)))``, then ``x + drop_path(mlp(norm2(x)))``."""
    return Chain(
        block,
        {
            "attn": Residual(block.norm1, block.attn, block.drop_path),
            "mlp": Residual(block.norm2, block.mlp, block.drop_path),
        },
    )
