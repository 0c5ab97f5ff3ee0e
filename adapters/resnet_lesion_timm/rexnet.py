"""ReXNet, which is refused: its shortcuts cover part of the channels."""

from typing import NoReturn

from timm.models.rexnet import LinearBottleneck

from resnet_lesion import register_adapter


@register_adapter(LinearBottleneck)
def linear_bottleneck(_block: LinearBottleneck) -> NoReturn:
    """``cat(x + branch(x)[:channels of x], branch(x)[the others])``."""
    raise TypeError(
        "expected residual blocks, whose shortcut spans the whole output: timm's ReXNet adds its input to the first "
        "channels of the output only; without the branch nothing is left of the others."
    )
