"""The layers of ``timm.models.vgg``, with and without batch norm: the paper's plain contrast to a residual network."""

from __future__ import annotations

from timm.models.vgg import VGG
from torch import nn

from resnet_lesion import Chain, Plain, register_adapter


@register_adapter(VGG)
def vgg(model: VGG) -> Chain:
    """Each ``relu(bn(conv(x)))`` that keeps the shape can be deleted; its name is the convolution's."""
    layers: dict[str, list[nn.Module]] = {}
    name = ""
    for key, module in model.features.named_children():
        if isinstance(module, nn.Conv2d | nn.MaxPool2d) or not name:
            name = key
        layers.setdefault(name, []).append(module)
    return Chain(model.features, {key: _link(*modules) for key, modules in layers.items()})


def _link(first: nn.Module, *others: nn.Module) -> nn.Module:
    keeps_shape = isinstance(first, nn.Conv2d) and first.in_channels == first.out_channels and first.stride == (1, 1)
    return Plain(first, *others) if keeps_shape else nn.Sequential(first, *others)
