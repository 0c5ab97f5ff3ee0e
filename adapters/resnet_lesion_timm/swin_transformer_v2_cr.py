"""Blocks of ``timm.models.swin_transformer_v2_cr``: Swin V2, Christoph Reich's implementation."""

from __future__ import annotations

from timm.models.swin_transformer_v2_cr import SwinTransformerV2CrBlock
from torch import Tensor

from resnet_lesion import Chain, Function, Residual, register_adapter


@register_adapter(SwinTransformerV2CrBlock)
def post_norm(block: SwinTransformerV2CrBlock) -> Chain:
    """``x + drop_path1(norm1(_shifted_window_attn(x)))``, ``x + drop_path2(norm2(mlp(x)))``, then ``norm3(x)``."""

    def mlp(x: Tensor) -> Tensor:
        y: Tensor = block.drop_path2(block.norm2(block.mlp(x.reshape(len(x), -1, x.shape[-1]))))
        return y.reshape(x.shape)

    def norm(x: Tensor) -> Tensor:
        y: Tensor = block.norm3(x.reshape(len(x), -1, x.shape[-1]))
        return y.reshape(x.shape)

    return Chain(
        block,
        {
            "attn": Residual(block._shifted_window_attn, block.norm1, block.drop_path1),
            "mlp": Residual(mlp),
            "norm3": Function(norm),
        },
    )
