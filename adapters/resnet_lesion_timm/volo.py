"""Blocks of ``timm.models.volo``: VOLO. Those of the class token add to a part of their input; they stay as is."""

from __future__ import annotations

from timm.models.volo import Outlooker, Transformer

from resnet_lesion import Chain, Residual, register_adapter


@register_adapter(Outlooker, Transformer)
def pre_norm(block: Outlooker | Transformer) -> Chain:
    """``x + drop_path1(attn(norm1(x)))``, then ``x + drop_path2(mlp(norm2(x)))``."""
    return Chain(
        block,
        {
            "attn": Residual(block.norm1, block.attn, block.drop_path1),
            "mlp": Residual(block.norm2, block.mlp, block.drop_path2),
        },
    )
