"""Blocks of ``timm.models.starnet``: StarNet."""

from timm.models.starnet import Block

from resnet_lesion import Branch, register_adapter


@register_adapter(Block)
def star(_block: Block) -> Branch:
    """``x + drop_path(dwconv2(g(act(f1(y)) * f2(y))))`` with ``y = dwconv(x)``."""
    return Branch(entry="dwconv", exit="drop_path")
