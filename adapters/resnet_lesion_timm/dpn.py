"""Dual path networks, which are refused: their blocks add and concatenate."""

from typing import NoReturn

from timm.models.dpn import DualPathBlock

from resnet_lesion import register_adapter


@register_adapter(DualPathBlock)
def dual_path_block(_block: DualPathBlock) -> NoReturn:
    """``x1 + branch1, cat(x2, branch2)``."""
    raise TypeError(
        "expected residual blocks, which are added: timm's DPN adds one part of each branch and concatenates the "
        "other, so that without its branch a block's output has another shape."
    )
