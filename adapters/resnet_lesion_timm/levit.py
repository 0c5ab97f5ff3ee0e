"""Blocks of ``timm.models.levit``: LeViT."""

from __future__ import annotations

from timm.models.levit import LevitBlock, LevitDownsample

from resnet_lesion import Chain, Residual, register_adapter


@register_adapter(LevitBlock)
def residual_block(block: LevitBlock) -> Chain:
    """``x + drop_path1(attn(x))``, then ``x + drop_path2(mlp(x))``."""
    return Chain(block, {"attn": Residual(block.attn, block.drop_path1), "mlp": Residual(block.mlp, block.drop_path2)})


@register_adapter(LevitDownsample)
def downsample(block: LevitDownsample) -> Chain:
    """``attn_downsample(x)``, which has no skip, then ``x + drop_path(mlp(x))``."""
    return Chain(block, {"attn_downsample": block.attn_downsample, "mlp": Residual(block.mlp, block.drop_path)})
