"""Blocks of ``timm.models.eva``: EVA, EVA-02, DINOv3, Perception Encoder, ViT with rotary embeddings, ..."""

from __future__ import annotations

from timm.models.eva import EvaBlock, EvaBlockPostNorm
from torch import Tensor

from resnet_lesion import Arguments, Chain, Residual, register_adapter


@register_adapter(EvaBlock)
def pre_norm(block: EvaBlock) -> Chain:
    """``x + drop_path1(gamma_1 * attn(norm1(x), rope))``, then ``x + drop_path2(gamma_2 * mlp(norm2(x)))``."""
    arguments = Arguments("rope")

    def attn(x: Tensor) -> Tensor:
        y: Tensor = block.attn(x, rope=arguments["rope"])
        return y if block.gamma_1 is None else block.gamma_1 * y

    def mlp(x: Tensor) -> Tensor:
        y: Tensor = block.mlp(x)
        return y if block.gamma_2 is None else block.gamma_2 * y

    links = {
        "attn": Residual(block.norm1, attn, block.drop_path1),
        "mlp": Residual(block.norm2, mlp, block.drop_path2),
    }
    return Chain(block, links, arguments)


@register_adapter(EvaBlockPostNorm)
def post_norm(block: EvaBlockPostNorm) -> Chain:
    """``x + drop_path1(norm1(attn(x, rope)))``, then ``x + drop_path2(norm2(mlp(x)))``."""
    arguments = Arguments("rope")

    def attn(x: Tensor) -> Tensor:
        y: Tensor = block.attn(x, rope=arguments["rope"])
        return y

    links = {
        "attn": Residual(attn, block.norm1, block.drop_path1),
        "mlp": Residual(block.mlp, block.norm2, block.drop_path2),
    }
    return Chain(block, links, arguments)
