"""Blocks of ``timm.models.iformer``: iFormer."""

from timm.models.iformer import Residual
from torch import Tensor

from resnet_lesion import Branch, register_adapter


@register_adapter(Residual)
def residual(block: Residual) -> Branch:
    """``x + gamma * drop_path(module(x))``."""

    def scale(residual: Tensor) -> Tensor:
        return residual if block.gamma is None else block.gamma * residual

    return Branch(entry="module", exit="drop_path", scale=scale)
