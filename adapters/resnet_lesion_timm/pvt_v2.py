"""Blocks of ``timm.models.pvt_v2``: Pyramid Vision Transformer v2."""

from __future__ import annotations

from timm.models.pvt_v2 import Block
from torch import Tensor

from resnet_lesion import Arguments, Chain, Residual, register_adapter


@register_adapter(Block)
def pre_norm(block: Block) -> Chain:
    """``x + drop_path1(attn(norm1(x), feat_size))``, then ``x + drop_path2(mlp(norm2(x), feat_size))``."""
    arguments = Arguments("feat_size")

    def attn(x: Tensor) -> Tensor:
        y: Tensor = block.attn(x, arguments["feat_size"])
        return y

    def mlp(x: Tensor) -> Tensor:
        y: Tensor = block.mlp(x, arguments["feat_size"])
        return y

    links = {
        "attn": Residual(block.norm1, attn, block.drop_path1),
        "mlp": Residual(block.norm2, mlp, block.drop_path2),
    }
    return Chain(block, links, arguments)
