"""The paper's CIFAR networks, built from timm's own classes and registered with timm."""

from __future__ import annotations

from collections import OrderedDict
from importlib.resources import files
from typing import Any

from timm.layers import BatchNormAct2d, ClassifierHead, create_conv2d
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.resnetv2 import ResNetV2
from timm.models.vgg import VGG
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
_UNTRAINED: dict[str, Any] = {
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

_UNTRAINED_VGG = _UNTRAINED | {"first_conv": "features.0"}

# timm takes the first of a name's tags when none is given
default_cfgs = generate_default_cfgs(
    {
        "cifar_preactresnet110.digits": _DIGITS,
        "cifar_preactresnet110.untrained": _UNTRAINED,
        "cifar_preactresnet56.untrained": _UNTRAINED,
        "cifar_preactresnet38.untrained": _UNTRAINED,
        "cifar_vgg15.untrained": _UNTRAINED_VGG,
        "cifar_vgg15_bn.untrained": _UNTRAINED_VGG,
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


class CifarVGG(VGG):
    """timm's VGG for CIFAR: 15 convolutions, 128 channels in each, then average pooling and one linear layer.

    All layers but the first, which has the image's three channels as input, keep the shape and can be deleted. Like the
    residual networks, it halves the resolution twice.

    References:
        Simonyan & Zisserman 2015 (arXiv:1409.1556); Veit, Wilber & Belongie 2016, section 4.1 (arXiv:1605.06431).
    """

    def __init__(self, **kwargs: Any) -> None:
        stage = [128] * 5
        super().__init__(cfg=[*stage, "M", *stage, "M", *stage], mlp_ratio=1 / 4096, **kwargs)
        # timm's two layers of 4096 are larger than all others together
        self.register_module("pre_logits", nn.Identity())
        factory = {name: kwargs[name] for name in ("device", "dtype") if name in kwargs}
        self.head = ClassifierHead(
            self.num_features,
            self.num_classes,
            pool_type=kwargs.get("global_pool", "avg"),
            drop_rate=self.drop_rate,
            **factory,
        )
        self.head_hidden_size = self.num_features
        if isinstance(self.head.fc, nn.Linear):
            nn.init.normal_(self.head.fc.weight, 0, 0.01)
            nn.init.zeros_(self.head.fc.bias)


@register_model
def cifar_preactresnet110(pretrained: bool = False, **kwargs: Any) -> CifarResNetV2:
    """Build the pre-activation ResNet-110 of the paper: 54 basic blocks, 1.73 million parameters."""
    return _preactresnet("cifar_preactresnet110", pretrained, layers=(18, 18, 18), **kwargs)


@register_model
def cifar_preactresnet56(pretrained: bool = False, **kwargs: Any) -> CifarResNetV2:
    """Build its sibling with 27 basic blocks, 0.86 million parameters."""
    return _preactresnet("cifar_preactresnet56", pretrained, layers=(9, 9, 9), **kwargs)


@register_model
def cifar_preactresnet38(pretrained: bool = False, **kwargs: Any) -> CifarResNetV2:
    """Build its sibling with 18 basic blocks, 0.56 million parameters."""
    return _preactresnet("cifar_preactresnet38", pretrained, layers=(6, 6, 6), **kwargs)


@register_model
def cifar_vgg15(pretrained: bool = False, **kwargs: Any) -> CifarVGG:
    """Build the paper's contrast to a residual network: 15 plain layers of 128 channels, 2.1 million parameters."""
    return _vgg("cifar_vgg15", pretrained, **kwargs)


@register_model
def cifar_vgg15_bn(pretrained: bool = False, **kwargs: Any) -> CifarVGG:
    """Build the same with batch norm after each convolution, without which 15 layers hardly train."""
    return _vgg("cifar_vgg15_bn", pretrained, norm_layer=nn.BatchNorm2d, **kwargs)


def _preactresnet(name: str, pretrained: bool, **kwargs: Any) -> CifarResNetV2:
    network: CifarResNetV2 = build_model_with_cfg(
        CifarResNetV2,
        name,
        pretrained,
        feature_cfg={"out_indices": (0, 1, 2, 3), "flatten_sequential": True},  # one stage fewer than timm's default
        **kwargs,
    )
    return network


def _vgg(name: str, pretrained: bool, **kwargs: Any) -> CifarVGG:
    network: CifarVGG = build_model_with_cfg(
        CifarVGG, name, pretrained, feature_cfg={"out_indices": (0, 1, 2), "flatten_sequential": True}, **kwargs
    )
    return network
