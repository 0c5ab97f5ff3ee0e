"""Tiny residual networks, hand-built and timm's, with every parameter and buffer random so that no branch is zero."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
import torch
from timm.layers import BatchNormAct2d, BlurPool2d, GroupNorm1, GroupNormAct, StdConv2d, create_conv2d
from timm.models import resnet, resnetv2
from torch import Tensor, nn
from torch.nn import functional as F

import resnet_lesion as rl

N_CLASSES = 5


class PostActivation(nn.Module):
    """``relu(shortcut(x) + bn2(conv2(relu(bn1(conv1(x))))))``: one in-place ReLU for both, addition in place."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(c_out)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(c_out)
        same = c_in == c_out and stride == 1
        self.projection = None if same else nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride), nn.BatchNorm2d(c_out))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.projection is None else self.projection(x)
        x = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        x += shortcut
        return self.relu(x)


@rl.register_adapter(PostActivation)
def post_activation(block: PostActivation) -> rl.Branch:
    shortcut = None if block.projection is None else "projection"
    return rl.Branch(entry="conv1", exit="bn2", shortcut=shortcut, post="relu")


class PreActivation(nn.Module):
    """``shortcut + conv2(act(conv1(preact(x))))``, where the shortcut is ``x``, or a projection of ``preact(x)``."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.preact = nn.Sequential(nn.BatchNorm2d(c_in), nn.ReLU(inplace=True))
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False)
        self.act = nn.Sequential(nn.BatchNorm2d(c_out), nn.ReLU(inplace=True))
        self.conv2 = nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False)
        same = c_in == c_out and stride == 1
        self.projection = None if same else nn.Conv2d(c_in, c_out, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        activated = self.preact(x)
        residual = self.conv2(self.act(self.conv1(activated)))
        residual += x if self.projection is None else self.projection(activated)
        return residual


@rl.register_adapter(PreActivation)
def pre_activation(block: PreActivation) -> rl.Branch:
    if block.projection is None:
        return rl.Branch(entry="preact", exit="conv2")
    return rl.Branch(entry="conv1", exit="conv2", shortcut="projection", preact="preact")


class Functional(nn.Module):
    """``relu_(pad(x) + 0.5 * conv2(relu(conv1(x))))``: shortcut, factor and ReLU are functions, not modules.

    The shortcut is that of He et al. 2016 (option A): every other pixel, zeros for the new channels.
    """

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, 1)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, 1, 1)
        self.is_identity = c_in == c_out and stride == 1
        self.pad = partial(self._pad, c_out - c_in, stride)

    @staticmethod
    def _pad(channels: int, stride: int, x: Tensor) -> Tensor:
        return F.pad(x[:, :, ::stride, ::stride], (0, 0, 0, 0, 0, channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu_(self.pad(x) + 0.5 * self.conv2(F.relu(self.conv1(x))))


@rl.register_adapter(Functional)
def functional(block: Functional) -> rl.Branch:
    shortcut = None if block.is_identity else block.pad
    return rl.Branch("conv1", "conv2", shortcut=shortcut, scale=lambda r: r.mul_(0.5), post=F.relu_)


class Net(nn.Module):
    """Two stages of three blocks, the second of which halves the pixels, with work of the model's own between them."""

    def __init__(self, block: Callable[[int, int, int], nn.Module]) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.stage1 = nn.Sequential(block(4, 4, 1), block(4, 4, 1), block(4, 4, 1))
        self.stage2 = nn.Sequential(block(4, 6, 2), block(6, 6, 1), block(6, 6, 1))
        self.head = nn.Linear(6, N_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stage1(F.relu(self.stem(x)))
        x = 0.8 * x + 0.1
        return self.head(self.stage2(x).mean((2, 3)))


def _timm_resnet(block: type[nn.Module], **options: object) -> nn.Module:
    channels = (8, 8, 16, 16) if block is resnet.BasicBlock else (4, 4, 8, 8)
    defaults = {"layers": (3, 1, 3, 2), "channels": channels, "stem_width": 8, "num_classes": N_CLASSES}
    return resnet.ResNet(block, **(defaults | options))


def _timm_resnetv2(**options: object) -> nn.Module:
    defaults = {"layers": (2, 3, 2), "channels": (8, 8, 16), "stem_chs": 8, "num_classes": N_CLASSES}
    return resnetv2.ResNetV2(**(defaults | {"conv_layer": create_conv2d, "norm_layer": BatchNormAct2d} | options))


@dataclass(frozen=True)
class Case:
    """How to build a network, which module ends a block's branch (the last that is there), an input's shape."""

    build: Callable[[], nn.Module]
    exits: tuple[str, ...]
    shape: tuple[int, ...] = (3, 6, 6)


_BASIC, _BOTTLENECK = ("bn2", "se", "drop_path"), ("bn3", "se", "drop_path")
_SMALL = (3, 32, 32)

HAND_BUILT = {
    "post-activation": Case(lambda: Net(PostActivation), ("bn2",)),
    "pre-activation": Case(lambda: Net(PreActivation), ("conv2",)),
    "functional": Case(lambda: Net(Functional), ("conv2",)),
}

BASIC = partial(_timm_resnet, resnet.BasicBlock)
BOTTLENECK = partial(_timm_resnet, resnet.Bottleneck)
GROUP_NORM = {"conv_layer": StdConv2d, "norm_layer": partial(GroupNormAct, num_groups=2)}

TIMM = {
    "resnet basic": Case(BASIC, _BASIC, _SMALL),
    "resnet bottleneck": Case(BOTTLENECK, _BOTTLENECK, _SMALL),
    "resnet basic eca, drop_path": Case(
        partial(BASIC, block_args={"attn_layer": "eca"}, drop_path_rate=0.3), _BASIC, _SMALL
    ),
    "resnet bottleneck se, avg_down, blur": Case(
        partial(BOTTLENECK, block_args={"attn_layer": "se"}, avg_down=True, aa_layer=BlurPool2d), _BOTTLENECK, _SMALL
    ),
    "resnet bottleneck groups, drop_path, GroupNorm, deep stem": Case(
        partial(BOTTLENECK, cardinality=2, base_width=32, drop_path_rate=0.2, norm_layer=GroupNorm1, stem_type="deep"),
        _BOTTLENECK,
        _SMALL,
    ),
    "resnetv2 basic": Case(partial(_timm_resnetv2, basic=True, bottle_ratio=1.0), ("drop_path",), _SMALL),
    "resnetv2 bottleneck GroupNorm (BiT)": Case(partial(_timm_resnetv2, **GROUP_NORM), ("drop_path",), _SMALL),
    "resnetv2 bottleneck avg_down, drop_path": Case(
        partial(_timm_resnetv2, avg_down=True, drop_path_rate=0.2), ("drop_path",), _SMALL
    ),
    "resnetv2 post-activation": Case(partial(_timm_resnetv2, preact=False), ("drop_path",), _SMALL),
}

CASES = HAND_BUILT | TIMM
BLOCKS = (
    PostActivation,
    PreActivation,
    Functional,
    resnet.BasicBlock,
    resnet.Bottleneck,
    resnetv2.PreActBasic,
    resnetv2.PreActBottleneck,
    resnetv2.Bottleneck,
)


def build(name: str = "post-activation", dtype: torch.dtype = torch.float64) -> nn.Module:
    """Build a network in eval mode, with random weights that are the same every time, and every class in use."""
    return copy.deepcopy(_built(name)).to(dtype)


@cache
def _built(name: str) -> nn.Module:
    model = randomised(CASES[name].build()).double().eval()
    classifier = next(m for m in reversed([*model.modules()]) if isinstance(m, nn.Linear | nn.Conv2d))
    with torch.no_grad():
        classifier.bias -= model(images(64, CASES[name].shape, seed=3)).mean(0)
    return model


def randomised(model: nn.Module, seed: int = 0) -> nn.Module:
    """Fill every parameter and buffer with random values of a usual size."""
    generator = torch.Generator().manual_seed(seed)

    def between(tensor: Tensor, low: float, high: float) -> None:
        tensor.copy_(torch.rand(tensor.shape, generator=generator) * (high - low) + low)

    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if tensor.ndim > 1 and tensor.requires_grad:
                size = math.sqrt(6 / tensor[0].numel())
                between(tensor, -size, size)
            elif name.endswith(("running_var", "weight")):
                between(tensor, 0.5, 1.5)
            elif name.endswith(("bias", "running_mean")):
                between(tensor, -0.5, 0.5)
    return model


def images(n: int, shape: tuple[int, ...] = (3, 6, 6), seed: int = 1, dtype: torch.dtype = torch.float64) -> Tensor:
    """Draw random inputs."""
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def labels(n: int, seed: int = 2) -> Tensor:
    """Draw random labels."""
    return torch.randint(N_CLASSES, (n,), generator=torch.Generator().manual_seed(seed))


def data(n: int = 7, case: str = "post-activation", dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Draw inputs that fit a network, and labels."""
    return images(n, CASES[case].shape, dtype=dtype), labels(n)


class Snapshot:
    """Everything that an analysis must leave as it is: the model, down to the hooks, and the global random states."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._before = self._state()

    def check(self) -> None:
        """Fail if anything has changed since."""
        after = self._state()
        assert after.keys() == self._before.keys()
        for key, value in self._before.items():
            assert after[key] == value, key

    def _state(self) -> dict[object, object]:
        state: dict[object, object] = {
            "torch": torch.get_rng_state().tolist(),
            "numpy": [str(part) for part in np.random.get_state(legacy=False).items()],  # noqa: NPY002
            "random": random.getstate(),
        }
        for name, module in self._model.named_modules():
            state[name] = id(module)
            for key, value in vars(module).items():
                plain = [(k, id(v)) for k, v in value.items()] if isinstance(value, dict) else value
                state[name, key] = id(plain) if isinstance(plain, Tensor) else plain
        for name, tensor in [*self._model.named_parameters(), *self._model.named_buffers()]:
            # the version grows with every write, also of an equal value
            state["values of", name] = (tensor.tolist(), tensor.requires_grad, tensor._version)
        return state
