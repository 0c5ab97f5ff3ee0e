import copy

import numpy as np
import pytest
import timm
import torch
from helpers import models
from timm.layers import BatchNormAct2d, Conv2dSame, SplitBatchNorm2d, StdConv2d
from torch import nn
from torch.nn.utils import parametrizations, parametrize
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

import resnet_lesion as rl
from resnet_lesion.acceleration.folding import fold_norms

# the batch norms that no convolution stands right before
KEPT = {
    "pre-activation": [
        *("stage1.0.preact.0", "stage1.1.preact.0", "stage1.2.preact.0"),
        *("stage2.0.preact.0", "stage2.1.preact.0", "stage2.2.preact.0"),
    ],
    "resnetv2 basic": [
        *("stages.0.blocks.0.norm1", "stages.0.blocks.1.norm1"),
        *("stages.1.blocks.0.norm1", "stages.1.blocks.1.norm1", "stages.1.blocks.2.norm1"),
        *("stages.2.blocks.0.norm1", "stages.2.blocks.1.norm1", "norm"),
    ],
}
KEPT["resnetv2 bottleneck avg_down, drop_path"] = KEPT["resnetv2 basic"]
TIMM = {  # with the number of norms that stay: the first of each pre-activation block, and the last of the network
    "resnet18": 0,
    "seresnet18": 0,
    "legacy_seresnet18": 0,
    "resnetv2_18": 9,
    "cifar_preactresnet38": 19,
    "cifar_vgg15_bn": 0,
    "mobilenetv2_035": 0,
}


def norms_of(model):
    return [name for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)]


def folded(model, inputs):
    """Fold a copy; check that it computes the same, its modules too, and return it with the pairs."""
    twin = copy.deepcopy(model)
    network = Whole(twin) if isinstance(model, Pair | nn.Sequential) else rl.wrap(twin)
    pairs = fold_norms(network, inputs[:1])
    assert {name for name, _ in model.named_modules()} <= {name for name, _ in twin.named_modules()}
    norms = {*pairs.values()}
    before, after = outputs(model, inputs, norms), outputs(twin, inputs, norms)
    assert before.keys() == after.keys() == {"", *norms}
    for name, expected in before.items():
        torch.testing.assert_close(after[name], expected, rtol=1e-12, atol=1e-12 * float(expected.abs().max()))
    return twin, pairs


def outputs(model, inputs, names):
    """Return what the model and some of its modules return."""
    found = {}
    handles = [
        model.get_submodule(name).register_forward_hook(
            lambda _module, _args, output, name=name: found.__setitem__(name, output.clone())
        )
        for name in names
    ]
    with torch.no_grad():
        found[""] = model(inputs)
    for handle in handles:
        handle.remove()
    return found


@pytest.mark.parametrize("name", models.CASES)
def test_a_folded_network_computes_the_same(name):
    model = models.build(name)
    twin, pairs = folded(model, models.images(3, models.CASES[name].shape))
    assert norms_of(twin) == KEPT.get(name, [])
    assert sorted(pairs.values()) == sorted({*norms_of(model)} - {*norms_of(twin)})


@pytest.mark.parametrize("name", TIMM)
def test_a_folded_timm_network_computes_the_same(name):
    model = models.randomised(timm.create_model(name, num_classes=5)).double().eval()
    twin, pairs = folded(model, models.images(2, (3, 32, 32)))
    assert len(norms_of(twin)) == TIMM[name]
    assert len(pairs) == len(norms_of(model)) - TIMM[name] > 0


class Whole:
    """Stands for a network in which no block is involved."""

    blocks = ()

    def __init__(self, model):
        self.model = model


class Pair(nn.Module):
    """A convolution and a norm, and what is made of them."""

    def __init__(self, conv=None, norm=None, forward=None):
        super().__init__()
        self.conv = conv or nn.Conv2d(3, 4, 3)
        self.norm = norm or nn.BatchNorm2d(4)
        self.run = forward or (lambda pair, x: pair.norm(pair.conv(x)))

    def forward(self, x):
        return self.run(self, x)


class Doubles(nn.BatchNorm2d):
    def forward(self, x):
        return 2 * super().forward(x)


class Residual(BatchNormAct2d):
    """Its submodules do not run one after another."""

    def forward(self, x):
        y = nn.BatchNorm2d.forward(self, x)
        return y + self.act(y)


class Unused(nn.BatchNorm2d):
    """Has parts that it does not run in eval mode, and that no Sequential could."""

    def __init__(self, features):
        super().__init__(features)
        self.others = nn.ModuleList([nn.BatchNorm2d(features)])


class Fails(nn.BatchNorm2d):
    def forward(self, x):
        if len(x) > 3:
            raise RuntimeError("at most three images")
        return super().forward(x)


class OfSingle(nn.BatchNorm2d):
    """Computes in float32, whatever it is given."""

    def forward(self, x):
        return nn.functional.batch_norm(
            x.float(), self.running_mean.float(), self.running_var.float(), self.weight.float(), self.bias.float()
        ).to(x.dtype)


def parametrised(norm):
    parametrize.register_parametrization(norm, "weight", nn.Softplus())
    return norm


FOLDED = {
    "bare": Pair,
    "no bias, no affine": lambda: Pair(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4, affine=False)),
    "groups, stride, dilation": lambda: Pair(nn.Conv2d(3, 6, 3, 2, 1, 2, 3), nn.BatchNorm2d(6)),
    "padding by reflection": lambda: Pair(nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect")),
    "activation within": lambda: Pair(norm=BatchNormAct2d(4)),
    "activation with a parameter within": lambda: Pair(norm=BatchNormAct2d(4, act_layer=nn.PReLU)),
    "identity between": lambda: Pair(forward=lambda pair, x: pair.norm(nn.Identity()(pair.conv(x)))),
    "in a row": lambda: nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(inplace=True)),
}
LEFT_ALONE = {
    "norm first": lambda: Pair(norm=nn.BatchNorm2d(3), forward=lambda pair, x: pair.conv(pair.norm(x))),
    "read twice": lambda: Pair(forward=lambda pair, x: (y := pair.conv(x)) * 2 + pair.norm(y)),
    "read through a view": lambda: Pair(forward=lambda pair, x: pair.norm(y := pair.conv(x)) + y.view(y.shape).mean()),
    "changed between": lambda: Pair(forward=lambda pair, x: pair.norm(pair.conv(x).relu_())),
    "convolution twice": lambda: Pair(forward=lambda pair, x: pair.norm(pair.conv(x)) + pair.conv(x + 1).mean()),
    "norm twice": lambda: Pair(forward=lambda pair, x: pair.norm(pair.norm(pair.conv(x)))),
    "weight read elsewhere": lambda: Pair(forward=lambda pair, x: pair.norm(pair.conv(x)) + pair.conv.weight.sum()),
    "statistics read elsewhere": lambda: Pair(
        forward=lambda pair, x: pair.norm(pair.conv(x)) + pair.norm.running_var.sum()
    ),
    "standardised weight": lambda: Pair(StdConv2d(3, 4, 3)),
    "padded in forward": lambda: Pair(Conv2dSame(3, 4, 3)),
    "parametrised weight": lambda: Pair(parametrizations.weight_norm(nn.Conv2d(3, 4, 3))),
    "norm that does more": lambda: Pair(norm=Doubles(4)),
    "norm with parts of another kind": lambda: Pair(norm=Unused(4)),
    "norm split in training": lambda: Pair(norm=SplitBatchNorm2d(4)),
    "norm that fails on other inputs": lambda: Pair(norm=Fails(4)),
    "norm in another precision": lambda: Pair(norm=OfSingle(4)),
    "norm called with a keyword": lambda: Pair(forward=lambda pair, x: pair.norm(input=pair.conv(x))),
    "spectral norm": lambda: Pair(parametrizations.spectral_norm(nn.Conv2d(3, 4, 3))),
    "parametrised norm": lambda: Pair(norm=parametrised(nn.BatchNorm2d(4))),
}


def with_hook(register):
    def build():
        pair = Pair()
        register(pair)
        return pair

    return build


LEFT_ALONE |= {
    "hook on the convolution": with_hook(lambda pair: pair.conv.register_forward_hook(lambda *_: None)),
    "hook before the norm": with_hook(lambda pair: pair.norm.register_forward_pre_hook(lambda *_: None)),
    "backward hook": with_hook(lambda pair: pair.conv.register_full_backward_hook(lambda *_: None)),
    "forward replaced": with_hook(lambda pair: setattr(pair.norm, "forward", lambda x: x + 1)),
}


@pytest.mark.parametrize("name", FOLDED)
def test_what_is_folded(name):
    twin, pairs = folded(models.randomised(FOLDED[name]()).double().eval(), models.images(3))
    assert len(pairs) == 1
    assert norms_of(twin) == []


@pytest.mark.parametrize("name", LEFT_ALONE)
def test_what_is_left_alone(name):
    torch.manual_seed(0)
    model = models.randomised(LEFT_ALONE[name]()).double().eval()
    twin, pairs = folded(model, models.images(3))
    assert not pairs
    assert [*map(type, twin.modules())] == [*map(type, model.modules())]


class Stemmed(nn.Module):
    """The stem's output goes into the first block's norm only, and the last block's into the head's only."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 5, 3, padding=1)
        self.blocks = nn.Sequential(*(models.PreActivation(c, 6, 1) for c in (5, 6, 6)), rl.Plain(nn.Conv2d(6, 6, 1)))
        self.norm = nn.BatchNorm2d(6)
        self.head = nn.Linear(6, models.N_CLASSES)

    def forward(self, x):
        return self.head(self.norm(self.blocks(self.stem(x))).relu().mean((2, 3)))


def test_what_cannot_be_watched_is_left_alone():
    class Unwatched(torch.autograd.Function):
        """Stands for an operation of torch that a dispatch mode does not see into, as flex_attention."""

        @staticmethod
        def forward(ctx, x):
            if _get_current_dispatch_mode_stack():
                raise NotImplementedError("no rule for this mode")
            return x

    pair = Pair(forward=lambda pair, x: Unwatched.apply(pair.norm(pair.conv(x))))
    _, pairs = folded(models.randomised(pair).double().eval(), models.images(3))
    assert not pairs


def test_what_a_lesion_may_part_is_left_alone():
    model = models.randomised(Stemmed()).double().eval()
    twin, pairs = folded(model, models.images(2))
    assert sorted(pairs) == ["blocks.0.conv1", "blocks.1.conv1", "blocks.2.conv1"]
    rows = [[0, -1, 2, 3], [0, 2, 1, -1], [0, 1, 1, 3], [0, 1, 2, -1]]
    expected, found = (rl.evaluate(which, models.data(8), rows, show_progress=False) for which in (model, twin))
    np.testing.assert_allclose(found.loss, expected.loss, rtol=1e-12)


class PlainWithNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)

    def forward(self, x):
        return self.norm(self.conv(x))


@rl.register_adapter(PlainWithNorm)
def plain_with_norm(_block):
    return rl.Branch("conv", "conv", post="norm", skip=False)


def test_a_norm_that_stays_when_its_block_is_deleted_is_left_alone():
    model = models.Net(lambda c_in, c_out, _: PlainWithNorm() if c_in == c_out == 4 else nn.Conv2d(c_in, c_out, 1))
    model = models.randomised(model).double().eval()
    _, pairs = folded(model, models.images(2))
    assert pairs == {}


def test_a_norm_with_two_names_is_replaced_under_both():
    pair = models.randomised(Pair()).double().eval()
    pair.other = pair.norm
    twin, _ = folded(pair, models.images(2))
    assert isinstance(twin.norm, nn.Identity)
    assert twin.other is twin.norm


def test_a_dead_channel_and_a_dead_branch_do_not_hide_a_wrong_fold():
    class Off(nn.BatchNorm2d):
        """Computes another function where an image is not all zeros."""

        def forward(self, x):
            return super().forward(x) + (1e-6 * x[:, :1]).relu()

    pair = models.randomised(Pair(norm=Off(4))).double().eval()
    nn.init.zeros_(pair.conv.weight)  # the pass itself shows no difference
    nn.init.constant_(pair.conv.bias, -1.0)
    assert fold_norms(Whole(pair), models.images(1)) == {}


def test_the_dtype_and_what_is_trained_stay():
    pair = models.randomised(Pair()).eval()
    pair.conv.weight.requires_grad_(False)
    fold_norms(Whole(pair), models.images(1, dtype=torch.float32))
    assert pair.conv.weight.dtype == pair.conv.bias.dtype == torch.float32
    assert not pair.conv.weight.requires_grad
