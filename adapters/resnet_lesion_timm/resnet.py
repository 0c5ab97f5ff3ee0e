"""Blocks of ``timm.models.resnet``: ResNet, ResNeXt, SE-ResNet, ECA-ResNet, ResNet-RS, ..."""

from timm.models.resnet import BasicBlock, Bottleneck

from resnet_lesion import Branch, register_adapter


@register_adapter(BasicBlock)
def basic_block(block: BasicBlock) -> Branch:
    """``act2(downsample(x) + drop_path(se(bn2(...conv1(x)))))``."""
    return Branch(entry="conv1", exit=_last(block, "drop_path", "se", "bn2"), shortcut=_downsample(block), post="act2")


@register_adapter(Bottleneck)
def bottleneck(block: Bottleneck) -> Branch:
    """``act3(downsample(x) + drop_path(se(bn3(...conv1(x)))))``."""
    return Branch(entry="conv1", exit=_last(block, "drop_path", "se", "bn3"), shortcut=_downsample(block), post="act3")


def _last(block: BasicBlock | Bottleneck, *names: str) -> str:
    # timm leaves out what is not asked for: attention and drop_path are None then
    return next(name for name in names if getattr(block, name) is not None)


def _downsample(block: BasicBlock | Bottleneck) -> str | None:
    return "downsample" if block.downsample is not None else None
