"""Blocks of ``timm.models.resnest``: ResNeSt."""

from timm.models.resnest import ResNestBottleneck

from resnet_lesion import Branch, register_adapter


@register_adapter(ResNestBottleneck)
def bottleneck(block: ResNestBottleneck) -> Branch:
    """``act3(x + bn3(...conv1(x)))`` or ``act3(downsample(drop_path(x)) + ...)``: drop_path is not in the branch."""
    if block.downsample is None:
        return Branch(entry="conv1", exit="bn3", post="act3")
    preact = "drop_path" if block.drop_path is not None else None
    return Branch(entry="conv1", exit="bn3", shortcut="downsample", preact=preact, post="act3")
