"""Blocks of ``timm.models.nfnet``: NFNet, NF-ResNet, NF-RegNet."""

from typing import Any

from timm.models.nfnet import NormFreeBlock
from torch import Tensor

from resnet_lesion import Branch, register_adapter


@register_adapter(NormFreeBlock)
def norm_free(block: Any) -> Branch:  # timm's decorator hides the class from type checkers
    """``x + alpha * gain * drop_path(...act1(x))`` or ``downsample(beta * act1(x)) + alpha * gain * ...conv1(...)``."""

    def scale(residual: Tensor) -> Tensor:
        # read when called: the gain is learnt
        gained = residual if block.skipinit_gain is None else residual * block.skipinit_gain
        scaled: Tensor = gained * block.alpha
        return scaled

    def preact(x: Tensor) -> Tensor:
        activated: Tensor = block.act1(x) * block.beta
        return activated

    if block.downsample is None:
        return Branch(entry="act1", exit="drop_path", scale=scale)
    return Branch(entry="conv1", exit="drop_path", shortcut="downsample", preact=preact, scale=scale)
