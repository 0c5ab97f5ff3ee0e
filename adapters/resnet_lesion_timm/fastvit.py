"""Blocks of ``timm.models.fastvit``: FastViT, MobileCLIP."""

from __future__ import annotations

from timm.models.fastvit import AttentionBlock, RepMixer, RepMixerBlock
from torch import Tensor, nn

from resnet_lesion import Chain, Residual, register_adapter


@register_adapter(RepMixerBlock)
def rep_mixer(block: RepMixerBlock) -> Chain:
    """``x + layer_scale(mixer(x) - norm(x))``, or one convolution once folded; then ``x + ...mlp(x)``."""
    mlp = Residual(block.mlp, block.layer_scale, block.drop_path)
    return Chain(block, {"token_mixer": _token_mixer(block.token_mixer), "mlp": mlp})


@register_adapter(AttentionBlock)
def attention(block: AttentionBlock) -> Chain:
    """``x + drop_path1(layer_scale_1(token_mixer(norm(x))))``, then ``x + drop_path2(layer_scale_2(mlp(x)))``."""
    return Chain(
        block,
        {
            "token_mixer": Residual(block.norm, block.token_mixer, block.layer_scale_1, block.drop_path1),
            "mlp": Residual(block.mlp, block.layer_scale_2, block.drop_path2),
        },
    )


def _token_mixer(mixer: RepMixer) -> nn.Module:
    if mixer.reparam_conv is not None:
        return mixer

    def branch(x: Tensor) -> Tensor:
        y: Tensor = mixer.layer_scale(mixer.mixer(x) - mixer.norm(x))
        return y

    return Residual(branch)
