"""Blocks of ``timm.models.repvit``: RepViT."""

from __future__ import annotations

from timm.models.repvit import RepViTBlock
from torch import nn

from resnet_lesion import Chain, Residual, register_adapter


@register_adapter(RepViTBlock)
def residual_block(block: RepViTBlock) -> Chain:
    """``se(token_mixer(x))``, whose skips fold into one convolution, then ``x + channel_mixer(x)``."""
    mixer = nn.Sequential(block.token_mixer, block.se)
    return Chain(block, {"token_mixer": mixer, "channel_mixer": Residual(block.channel_mixer)})
