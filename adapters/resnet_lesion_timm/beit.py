"""Blocks of ``timm.models.beit``: BEiT, BEiT v2."""

from __future__ import annotations

from timm.models.beit import Block
from torch import Tensor

from resnet_lesion import Arguments, Chain, Residual, register_adapter


@register_adapter(Block)
def pre_norm(block: Block) -> Chain:
    """``x + drop_path1(gamma_1 * attn(norm1(x), bias))``, then ``x + drop_path2(gamma_2 * mlp(norm2(x)))``."""
    arguments = Arguments("shared_rel_pos_bias")

    def attn(x: Tensor) -> Tensor:
        y: Tensor = block.attn(x, shared_rel_pos_bias=arguments["shared_rel_pos_bias"])
        return y if block.gamma_1 is None else block.gamma_1 * y

    def mlp(x: Tensor) -> Tensor:
        y: Tensor = block.mlp(x)
        return y if block.gamma_2 is None else block.gamma_2 * y

    links = {
        "attn": Residual(block.norm1, attn, block.drop_path1),
        "mlp": Residual(block.norm2, mlp, block.drop_path2),
    }
    return Chain(block, links, arguments)
