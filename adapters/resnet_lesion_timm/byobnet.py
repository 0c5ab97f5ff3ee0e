"""Blocks of ``timm.models.byobnet`` and ``byoanet``: GCResNet, ECA-ResNeXt-26, LambdaNet, BoTNet, RepVGG, ..."""

from timm.models.byobnet import (
    BasicBlock,
    BottleneckBlock,
    DarkBlock,
    EdgeBlock,
    MobileOneBlock,
    RepVggBlock,
    SelfAttnBlock,
)
from torch import Tensor

from resnet_lesion import Branch, register_adapter
from resnet_lesion_timm._parts import projection


@register_adapter(BasicBlock, BottleneckBlock, DarkBlock, EdgeBlock, SelfAttnBlock)
def residual_block(block: BasicBlock | BottleneckBlock | DarkBlock | EdgeBlock | SelfAttnBlock) -> Branch | None:
    """``act(shortcut(x) + drop_path(...conv1(x)))``, unless the configuration leaves the shortcut out."""
    if block.shortcut is None:
        return None
    entry = "conv1_kxk" if isinstance(block, BasicBlock | EdgeBlock) else "conv1_1x1"
    return Branch(entry, exit="drop_path", shortcut=projection(block, "shortcut"), post="act")


@register_adapter(RepVggBlock)
def rep_vgg(block: RepVggBlock) -> Branch | None:
    """``act(attn(identity(x) + drop_path(conv_1x1(x) + conv_kxk(x))))``; identity is a norm, or missing."""
    if block.reparam_conv is not None or block.identity is None:
        return None

    def post(y: Tensor) -> Tensor:
        activated: Tensor = block.act(block.attn(y))
        return activated

    return Branch(("conv_1x1", "conv_kxk"), exit="drop_path", shortcut="identity", post=post)


@register_adapter(MobileOneBlock)
def mobile_one(block: MobileOneBlock) -> Branch | None:
    """``act(attn(identity(x) + drop_path(conv_scale(x) + conv_kxk[0](x) + ...)))``; identity is a norm, or missing."""
    if block.reparam_conv is not None or block.identity is None:
        return None

    def post(y: Tensor) -> Tensor:
        activated: Tensor = block.act(block.attn(y))
        return activated

    entries = [f"conv_kxk.{i}" for i in range(len(block.conv_kxk))]
    if block.conv_scale is not None:
        entries.insert(0, "conv_scale")
    return Branch(tuple(entries), exit="drop_path", shortcut="identity", post=post)
