"""Blocks of ``timm.models.visformer``: Visformer."""

from __future__ import annotations

from timm.models.visformer import Block

from resnet_lesion import Chain, Residual, register_adapter


@register_adapter(Block)
def pre_norm(block: Block) -> Chain:
    """``x + drop_path(attn(norm1(x)))`` where there is attention, then ``x + drop_path(mlp(norm2(x)))``."""
    links = {}
    if block.attn is not None and block.norm1 is not None:
        links["attn"] = Residual(block.norm1, block.attn, block.drop_path)
    links["mlp"] = Residual(block.norm2, block.mlp, block.drop_path)
    return Chain(block, links)
