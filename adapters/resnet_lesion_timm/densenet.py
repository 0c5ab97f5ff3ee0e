"""DenseNet, which is refused: its layers are concatenated."""

from typing import NoReturn

from timm.models.densenet import DenseLayer

from resnet_lesion import register_adapter


@register_adapter(DenseLayer)
def dense_layer(_block: DenseLayer) -> NoReturn:
    """``cat(x, branch(x))``."""
    raise TypeError(
        "expected residual blocks, which are added: timm's DenseNet concatenates what its layers compute, so that no "
        "layer has a shortcut to leave behind."
    )
