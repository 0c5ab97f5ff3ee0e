"""Deep layer aggregation, which is refused: its trees concatenate what their blocks compute."""

from typing import NoReturn

from timm.models.dla import DlaTree

from resnet_lesion import register_adapter


@register_adapter(DlaTree)
def dla_tree(_block: DlaTree) -> NoReturn:
    """``root(cat(tree1(x), tree2(tree1(x)), ...))``."""
    raise TypeError(
        "expected residual blocks in a row: timm's DLA hands each block its shortcut from outside and concatenates the "
        "outputs of several blocks, so that deleting one changes more than its own sum."
    )
