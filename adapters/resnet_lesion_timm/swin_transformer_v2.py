"""Blocks of ``timm.models.swin_transformer_v2``: Swin V2."""

from __future__ import annotations

from timm.models.swin_transformer_v2 import SwinTransformerV2Block
from torch import Tensor

from resnet_lesion import Chain, Residual, register_adapter


@register_adapter(SwinTransformerV2Block)
def post_norm(block: SwinTransformerV2Block) -> Chain:
    """``x + drop_path1(norm1(_attn(x)))``, then ``x + drop_path2(norm2(mlp(x)))`` on flattened positions."""

    def mlp(x: Tensor) -> Tensor:
        y: Tensor = block.drop_path2(block.norm2(block.mlp(x.reshape(len(x), -1, x.shape[-1]))))
        return y.reshape(x.shape)

    return Chain(block, {"attn": Residual(block._attn, block.norm1, block.drop_path1), "mlp": Residual(mlp)})
