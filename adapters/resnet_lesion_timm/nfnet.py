"""Blocks of ``timm.models.nfnet``: NFNet, NF-ResNet, NF-RegNet."""

from timm.models.nfnet import NormFreeBlock
from torch import Tensor

from resnet_lesion import Branch, register_adapter


@register_adapter(NormFreeBlock)
def norm_free(block: NormFreeBlock) -> Branch:
    """``x + alpha * gain * drop_path(...act1(x))`` or ``downsample(beta * act1(x)) + alpha * gain * ...conv1(...)``."""

    def scale(residual: Tensor) -> Tensor:
        # read when called: the gain is learnt
        gained = residual if block.skipinit_gain is None else residual * block.skipinit_gain
        return gained * block.alpha

    def preact(x: Tensor) -> Tensor:
        activated: Tensor = block.act1(x)
        return activated * block.beta

    if block.downsample is None:
        return Branch(entry="act1", exit="drop_path", scale=scale)
    return Branch(entry="conv1", exit="drop_path", shortcut="downsample", preact=preact, scale=scale)
