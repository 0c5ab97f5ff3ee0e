"""Blocks of ``timm.models.mlp_mixer``: MLP-Mixer, ResMLP, gMLP."""

from __future__ import annotations

from timm.models.mlp_mixer import MixerBlock, ResBlock, SpatialGatingBlock
from torch import Tensor

from resnet_lesion import Branch, Chain, Residual, register_adapter


@register_adapter(MixerBlock)
def mixer(block: MixerBlock) -> Chain:
    """``x + drop_path(mlp_tokens(norm1(x)ᵀ)ᵀ)``, then ``x + drop_path(mlp_channels(norm2(x)))``."""

    def tokens(x: Tensor) -> Tensor:
        y: Tensor = block.mlp_tokens(x.transpose(1, 2))
        return y.transpose(1, 2)

    return Chain(
        block,
        {
            "mlp_tokens": Residual(block.norm1, tokens, block.drop_path),
            "mlp_channels": Residual(block.norm2, block.mlp_channels, block.drop_path),
        },
    )


@register_adapter(ResBlock)
def res_mlp(block: ResBlock) -> Chain:
    """``x + drop_path(ls1 * linear_tokens(norm1(x)ᵀ)ᵀ)``, then ``x + drop_path(ls2 * mlp_channels(norm2(x)))``."""

    def tokens(x: Tensor) -> Tensor:
        y: Tensor = block.linear_tokens(x.transpose(1, 2))
        return block.ls1 * y.transpose(1, 2)

    def channels(x: Tensor) -> Tensor:
        y: Tensor = block.ls2 * block.mlp_channels(x)
        return y

    return Chain(
        block,
        {
            "linear_tokens": Residual(block.norm1, tokens, block.drop_path),
            "mlp_channels": Residual(block.norm2, channels, block.drop_path),
        },
    )


@register_adapter(SpatialGatingBlock)
def spatial_gating(_block: SpatialGatingBlock) -> Branch:
    """``x + drop_path(mlp_channels(norm(x)))``."""
    return Branch(entry="norm", exit="drop_path")
