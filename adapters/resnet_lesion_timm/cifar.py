"""The paper's CIFAR networks, built from timm's own classes and registered with timm."""

from __future__ import annotations

from collections import OrderedDict
from importlib.resources import files
from typing import Any

from timm.layers import BatchNormAct2d, create_conv2d
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.resnetv2 import ResNetV2
from torch import nn

_DIGITS = {
    "file": str(files("resnet_lesion_timm") / "weights" / "cifar_preactresnet110.digits.safetensors"),
    "num_classes": 10,
    "input_size": (3, 8, 8),
    "pool_size": (2, 2),
    "mean": (0.5, 0.5, 0.5),
    "std": (0.5, 0.5, 0.5),
    "crop_pct": 1.0,
    "interpolation": "bilinear",
    "first_conv": "stem.conv",
    "classifier": "head.fc",
    "license": "mit",
    "description": "scikit-learn's digits, 8x8 pixels, grey repeated over three channels",
}
_UNTRAINED = {
    "num_classes": 10,
    "input_size": (3, 32, 32),
    "pool_size": (8, 8),
    "mean": (0.4914, 0.4822, 0.4465),
    "std": (0.2470, 0.2435, 0.2616),
    "crop_pct": 1.0,
    "interpolation": "bilinear",
    "first_conv": "stem.conv",
    "classifier": "head.fc",
}

# the first of a name's tags is what timm takes when none is given
default_cfgs = generate_default_cfgs(
    {
        "cifar_preactresnet110.digits": _DIGITS,
        "cifar_preactresnet110.untrained": _UNTRAINED,
    }
)


class CifarResNetV2(ResNetV2):
    """timm's pre-activation ResNet with a CIFAR stem: one 3x3 convolution, no pooling; widths 16, 32, 64.

    References:
        He et al. 2016, "Identity Mappings in Deep Residual Networks" (arXiv:1603.05027).
    """

    def __init__(self, in_chans: int = 3, num_classes: int = 10, **kwargs: Any) -> None:
        super().__init__(
            in_chans=in_chans,
            num_classes=num_classes,
            channels=(16, 32, 64),
            stem_chs=16,
            basic=True,
            bottle_ratio=1.0,  # timm's default of 1/4 would squeeze the basic block too
            conv_layer=create_conv2d,
            norm_layer=BatchNormAct2d,
            **kwargs,
        )
        factory = {name: kwargs[name] for name in ("device", "dtype") if name in kwargs}
        conv = nn.Conv2d(in_chans, 16, 3, padding=1, bias=False, **factory)
        nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
        self.stem = nn.Sequential(OrderedDict(conv=conv))
        self.stem_feat_idx = 0
        for info, reduction in zip(self.feature_info, (1, 1, 2, 4), strict=True):
            info["reduction"] = reduction


@register_model
def cifar_preactresnet110(pretrained: bool = False, **kwargs: Any) -> CifarResNetV2:
    """Build the pre-activation ResNet-110 of the paper: 54 basic blocks, 1.73 million parameters."""
    network: CifarResNetV2 = build_model_with_cfg(
        CifarResNetV2,
        "cifar_preactresnet110",
        pretrained,
        feature_cfg={"out_indices": (0, 1, 2, 3), "flatten_sequential": True},  # one stage less than timm's default
        layers=(18, 18, 18),
        **kwargs,
    )
    return network
