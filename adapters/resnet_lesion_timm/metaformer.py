"""Blocks of ``timm.models.metaformer``: PoolFormer, ConvFormer, CAFormer."""

from __future__ import annotations

from timm.models.metaformer import MetaFormerBlock
from torch import nn

from resnet_lesion import Chain, Residual, register_adapter


@register_adapter(MetaFormerBlock)
def meta_former(block: MetaFormerBlock) -> Chain:
    """``res_scale1(x) + layer_scale1(drop_path1(token_mixer(norm1(x))))``, then the same with 2 and mlp."""
    return Chain(
        block,
        {
            "token_mixer": Residual(
                block.norm1,
                block.token_mixer,
                block.drop_path1,
                block.layer_scale1,
                shortcut=_projection(block.res_scale1),
            ),
            "mlp": Residual(
                block.norm2, block.mlp, block.drop_path2, block.layer_scale2, shortcut=_projection(block.res_scale2)
            ),
        },
    )


def _projection(module: nn.Module) -> nn.Module | None:
    return None if isinstance(module, nn.Identity) else module
