"""HRNet, which is refused: its streams are fused over resolutions."""

from typing import NoReturn

from timm.models.hrnet import HighResolutionModule

from resnet_lesion import register_adapter


@register_adapter(HighResolutionModule)
def high_resolution_module(_block: HighResolutionModule) -> NoReturn:
    """Parallel rows of blocks, each output the sum over all rows."""
    raise TypeError(
        "expected residual blocks in a row: timm's HRNet runs rows of blocks in parallel at several resolutions and "
        "adds each row to all others, so that a block has no place in one order and a path no length."
    )
