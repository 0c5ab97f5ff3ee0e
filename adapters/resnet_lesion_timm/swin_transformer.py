"""Blocks of ``timm.models.swin_transformer``: Swin, Swin-S3."""

from __future__ import annotations

from timm.models.swin_transformer import SwinTransformerBlock
from torch import Tensor

from resnet_lesion import Chain, Residual, register_adapter


@register_adapter(SwinTransformerBlock)
def pre_norm(block: SwinTransformerBlock) -> Chain:
    """``x + drop_path1(_attn(norm1(x)))``, then ``x + drop_path2(mlp(norm2(x)))`` on flattened positions."""

    def mlp(x: Tensor) -> Tensor:
        y: Tensor = block.drop_path2(block.mlp(block.norm2(x.reshape(len(x), -1, x.shape[-1]))))
        return y.reshape(x.shape)

    return Chain(block, {"attn": Residual(block.norm1, block._attn, block.drop_path1), "mlp": Residual(mlp)})
