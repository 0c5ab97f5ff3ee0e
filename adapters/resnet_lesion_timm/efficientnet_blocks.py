"""Blocks of ``timm.models._efficientnet_blocks``: EfficientNet, MobileNet V1 to V5, MNASNet, FBNet, LCNet, TinyNet, ...

Those that change the shape have no skip.
"""

from timm.models._efficientnet_blocks import (
    CondConvResidual,
    ConvBnAct,
    DepthwiseSeparableConv,
    EdgeResidual,
    InvertedResidual,
    MobileAttention,
    UniversalInvertedResidual,
)

from resnet_lesion import Branch, Chain, Residual, register_adapter


@register_adapter(ConvBnAct)
def conv_bn_act(block: ConvBnAct) -> Branch | None:
    """``x + drop_path(bn1(conv(x)))``."""
    return Branch(entry="conv", exit="drop_path") if block.has_skip else None


@register_adapter(DepthwiseSeparableConv)
def depthwise_separable(block: DepthwiseSeparableConv) -> Branch | None:
    """``x + drop_path(...conv_dw(x))``."""
    return Branch(entry="conv_dw", exit="drop_path") if block.has_skip and block.conv_s2d is None else None


@register_adapter(InvertedResidual)
def inverted_residual(block: InvertedResidual) -> Branch | None:
    """``x + drop_path(...conv_pw(x))``."""
    return Branch(entry="conv_pw", exit="drop_path") if block.has_skip and block.conv_s2d is None else None


@register_adapter(CondConvResidual)
def cond_conv_residual(block: CondConvResidual) -> Branch | None:
    """``x + drop_path(...conv_pw(x, routing_fn(pool(x))))``."""
    return Branch(entry=("routing_fn", "conv_pw"), exit="drop_path") if block.has_skip else None


@register_adapter(UniversalInvertedResidual)
def universal_inverted_residual(block: UniversalInvertedResidual) -> Branch | None:
    """``x + drop_path(...dw_start(x))``; dw_start may be an identity."""
    return Branch(entry="dw_start", exit="drop_path") if block.has_skip else None


@register_adapter(EdgeResidual)
def edge_residual(block: EdgeResidual) -> Branch | None:
    """``x + drop_path(...conv_exp(x))``."""
    return Branch(entry="conv_exp", exit="drop_path") if block.has_skip else None


@register_adapter(MobileAttention)
def mobile_attention(block: MobileAttention) -> Branch | Chain | None:
    """``x + drop_path(...norm(x))``, after ``x + conv_cpe_dw(x)`` where the position is encoded."""
    if not block.has_skip:
        return None
    if block.conv_cpe_dw is None:
        return Branch(entry="norm", exit="drop_path")
    attention = Residual(block.norm, block.attn, block.layer_scale, block.drop_path)
    return Chain(block, {"cpe": Residual(block.conv_cpe_dw), "attn": attention})
