"""Blocks of ``timm.models.vision_transformer_relpos``: ViT with relative position biases."""

from __future__ import annotations

from timm.models.vision_transformer_relpos import RelPosBlock, ResPostRelPosBlock
from torch import Tensor

from resnet_lesion import Arguments, Chain, Residual, register_adapter


@register_adapter(RelPosBlock)
def pre_norm(block: RelPosBlock) -> Chain:
    """``x + drop_path1(ls1(attn(norm1(x), bias)))``, then ``x + drop_path2(ls2(mlp(norm2(x))))``."""
    arguments = Arguments("shared_rel_pos")

    def attn(x: Tensor) -> Tensor:
        y: Tensor = block.attn(x, shared_rel_pos=arguments["shared_rel_pos"])
        return y

    links = {
        "attn": Residual(block.norm1, attn, block.ls1, block.drop_path1),
        "mlp": Residual(block.norm2, block.mlp, block.ls2, block.drop_path2),
    }
    return Chain(block, links, arguments)


@register_adapter(ResPostRelPosBlock)
def post_norm(block: ResPostRelPosBlock) -> Chain:
    """``x + drop_path1(norm1(attn(x, bias)))``, then ``x + drop_path2(norm2(mlp(x)))``."""
    arguments = Arguments("shared_rel_pos")

    def attn(x: Tensor) -> Tensor:
        y: Tensor = block.attn(x, shared_rel_pos=arguments["shared_rel_pos"])
        return y

    links = {
        "attn": Residual(attn, block.norm1, block.drop_path1),
        "mlp": Residual(block.mlp, block.norm2, block.drop_path2),
    }
    return Chain(block, links, arguments)
