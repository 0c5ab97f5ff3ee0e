"""Blocks of ``timm.models.twins``: Twins-PCPVT, Twins-SVT."""

from __future__ import annotations

from timm.models.twins import Block
from torch import Tensor

from resnet_lesion import Arguments, Chain, Residual, register_adapter


@register_adapter(Block)
def pre_norm(block: Block) -> Chain:
    """``x + drop_path1(attn(norm1(x), size))``, then ``x + drop_path2(mlp(norm2(x)))``."""
    arguments = Arguments("size")

    def attn(x: Tensor) -> Tensor:
        y: Tensor = block.attn(x, arguments["size"])
        return y

    links = {
        "attn": Residual(block.norm1, attn, block.drop_path1),
        "mlp": Residual(block.norm2, block.mlp, block.drop_path2),
    }
    return Chain(block, links, arguments)
