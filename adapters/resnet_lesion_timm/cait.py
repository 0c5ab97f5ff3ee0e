"""Blocks of ``timm.models.cait``: CaiT. Those of the class token add to one of their two inputs; they stay as is."""

from __future__ import annotations

from timm.models.cait import LayerScaleBlock
from torch import Tensor

from resnet_lesion import Chain, Residual, register_adapter


@register_adapter(LayerScaleBlock)
def layer_scale(block: LayerScaleBlock) -> Chain:
    """``x + drop_path(gamma_1 * attn(norm1(x)))``, then ``x + drop_path(gamma_2 * mlp(norm2(x)))``."""

    def attn(x: Tensor) -> Tensor:
        y: Tensor = block.gamma_1 * block.attn(x)
        return y

    def mlp(x: Tensor) -> Tensor:
        y: Tensor = block.gamma_2 * block.mlp(x)
        return y

    return Chain(
        block,
        {
            "attn": Residual(block.norm1, attn, block.drop_path),
            "mlp": Residual(block.norm2, mlp, block.drop_path),
        },
    )
