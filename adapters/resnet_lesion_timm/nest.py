"""Blocks of ``timm.models.nest``: NesT, Jx-NesT."""

from __future__ import annotations

from timm.models.nest import TransformerLayer

from resnet_lesion import Chain, Residual, register_adapter


@register_adapter(TransformerLayer)
def pre_norm(block: TransformerLayer) -> Chain:
    """``x + drop_path1(attn(norm1(x)))``, then ``x + drop_path2(mlp(norm2(x)))``."""
    return Chain(
        block,
        {
            "attn": Residual(block.norm1, block.attn, block.drop_path1),
            "mlp": Residual(block.norm2, block.mlp, block.drop_path2),
        },
    )
