"""Blocks of ``timm.models.maxxvit``: CoAtNet, MaxViT, MaxxViT and their hybrids."""

from __future__ import annotations

from timm.models.maxxvit import (
    ConvNeXtBlock,
    MbConvBlock,
    ParallelPartitionAttention,
    PartitionAttention2d,
    PartitionAttentionCl,
    TransformerBlock2d,
)
from torch import nn

from resnet_lesion import Branch, Chain, Residual, register_adapter
from resnet_lesion_timm._parts import projection


@register_adapter(MbConvBlock)
def mb_conv(block: MbConvBlock) -> Branch:
    """``shortcut(x) + drop_path(...pre_norm(x))``."""
    return Branch(entry="pre_norm", exit="drop_path", shortcut=projection(block, "shortcut"))


@register_adapter(ConvNeXtBlock)
def conv_next(block: ConvNeXtBlock) -> Branch:
    """``shortcut(x) + drop_path(...down(x))``; down may be an identity."""
    return Branch(entry="down", exit="drop_path", shortcut=projection(block, "shortcut"))


@register_adapter(TransformerBlock2d)
def transformer(block: TransformerBlock2d) -> Chain:
    """``shortcut(x) + drop_path1(ls1(attn(norm1(x))))``, then ``x + drop_path2(ls2(mlp(norm2(x))))``."""
    shortcut = None if isinstance(block.shortcut, nn.Identity) else block.shortcut
    return Chain(
        block,
        {
            "attn": Residual(block.norm1, block.attn, block.ls1, block.drop_path1, shortcut=shortcut),
            "mlp": Residual(block.norm2, block.mlp, block.ls2, block.drop_path2),
        },
    )


@register_adapter(ParallelPartitionAttention, PartitionAttention2d, PartitionAttentionCl)
def partition(block: ParallelPartitionAttention | PartitionAttention2d | PartitionAttentionCl) -> Chain:
    """``x + drop_path1(ls1(_partition_attn(norm1(x))))``, then ``x + drop_path2(ls2(mlp(norm2(x))))``."""
    return Chain(
        block,
        {
            "attn": Residual(block.norm1, block._partition_attn, block.ls1, block.drop_path1),
            "mlp": Residual(block.norm2, block.mlp, block.ls2, block.drop_path2),
        },
    )
