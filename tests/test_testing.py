import dataclasses
from functools import partial

import pytest
import torch
from helpers import models
from timm.layers import FilterResponseNormTlu2d, create_conv2d
from timm.models import resnetv2
from torch import nn
from torch.nn import functional as F

import resnet_lesion as rl
from resnet_lesion.reports.summary import summarise
from resnet_lesion.testing import check_adapter


@pytest.mark.parametrize("name", models.CASES)
def test_our_own_adapters_are_right(name):
    case = models.CASES[name]
    # fresh, as a user has it: many of timm's branches are zero then
    assert check_adapter(case.build(), models.images(2, case.shape)) < 1e-12


def test_a_norm_that_computes_in_single_precision_is_no_mistake():
    norm = partial(FilterResponseNormTlu2d, eps=1e-3)
    model = resnetv2.ResNetV2(
        [1, 1], channels=(8, 8), stem_chs=8, num_classes=5, conv_layer=create_conv2d, norm_layer=norm
    )
    assert 1e-12 < check_adapter(model, models.images(2, (3, 32, 32))) < 1e-6


def test_the_model_is_left_alone():
    model = models.build().train()
    snapshot = models.Snapshot(model)
    check_adapter(model, models.images(2))
    check_adapter(rl.wrap(model), models.images(2))
    snapshot.check()


def with_adapter(block, adapter, **wrong):
    """Build a network of blocks whose adapter is wrong."""

    class Wrong(block):
        pass

    rl.register_adapter(Wrong)(lambda own: dataclasses.replace(adapter(own), **wrong))
    return models.Net(Wrong)


POST = (models.PostActivation, models.post_activation)
PRE = (models.PreActivation, models.pre_activation)
FUNCTIONAL = (models.Functional, models.functional)


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (POST, {"exit": "conv2"}),
        (POST, {"exit": "relu"}),
        (POST, {"post": None}),
        (POST, {"post": F.gelu}),
        (POST, {"preact": F.relu}),  # nothing changes behind a block that ends with a ReLU
        (POST, {"entry": "conv2"}),
        (POST, {"entry": "conv9"}),
        (PRE, {"entry": "conv2"}),
        (PRE, {"exit": "act"}),
        (PRE, {"post": torch.relu}),
        (FUNCTIONAL, {"scale": None}),
        (FUNCTIONAL, {"exit": "conv1"}),
        (FUNCTIONAL, {"preact": torch.abs}),
    ],
)
def test_wrong_adapters_are_caught(kind, wrong):
    with pytest.raises(rl.AdapterError, match=r"block 'stage1\.0'"):
        check_adapter(with_adapter(*kind, **wrong), models.images(2))
    assert check_adapter(with_adapter(*kind), models.images(2)) < 1e-12


def test_a_model_without_blocks_is_refused():
    with pytest.raises(TypeError, match="no residual block that an adapter knows"):
        check_adapter(torch.nn.Linear(2, 2), torch.zeros(1, 2))


def test_a_branch_that_is_always_zero_is_refused_as_nothing_shows():
    class Silent(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.mute = nn.Linear(3, 3), rl.Function(lambda x: 0 * x)

        def forward(self, x):
            return x + self.mute(self.body(x))

    rl.register_adapter(Silent)(lambda _block: rl.Branch(entry="body", exit="mute"))
    with pytest.raises(rl.AdapterError, match="block '0': the exit 'mute' is zero"):
        check_adapter(nn.Sequential(Silent()), torch.randn(2, 3))


class Halved(nn.Module):
    """Its branch counts half, its shortcut is a projection, and a SiLU follows."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.side = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1)

    def forward(self, x):
        return F.silu(self.side(x) + 0.5 * self.norm(self.conv(x)))


RIGHT = rl.Branch(entry="conv", exit="norm", shortcut="side", scale=0.5, post=F.silu)


@rl.register_adapter(Halved)
def halved(block):
    return block.adapter(block)


def checked(adapter):
    block = Halved()
    block.adapter = adapter
    return check_adapter(nn.Sequential(block), torch.randn(2, 3, 8, 8))


def test_a_factor_may_be_a_number_or_a_function():
    assert checked(lambda block: RIGHT) < 1e-12
    assert checked(lambda block: dataclasses.replace(RIGHT, scale=lambda t: t / 2)) < 1e-12


def test_another_way_to_write_the_same_is_told_from_a_mistake():
    with pytest.raises(rl.AdapterError, match=r"to the last bit; relative deviation \d.*e-1\d\. Let its adapter name"):
        checked(lambda block: dataclasses.replace(RIGHT, post=lambda t: t * torch.sigmoid(t)))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"scale": lambda t: 0.25 * t + 0.25 * t.detach()}, "as its adapter says them, do not add up"),
        ({"post": lambda t: F.silu(t).detach()}, "no gradient passes what its adapter says"),
        ({"scale": 0.25}, r"is not post\(shortcut\(x\) \+ scale\(branch\(x\)\)\)"),
        ({"post": torch.relu}, r"is not post\(shortcut\(x\) \+ scale\(branch\(x\)\)\)"),
    ],
)
def test_wrong_numbers_and_wrong_gradients_are_caught(change, words):
    with pytest.raises(rl.AdapterError, match=words):
        checked(lambda block: dataclasses.replace(RIGHT, **change))


def test_a_shortcut_without_its_whole_gradient_is_caught():
    def adapter(block):
        return dataclasses.replace(RIGHT, shortcut=lambda t: block.side(t) / 2 + block.side(t).detach() / 2)

    with pytest.raises(rl.AdapterError, match="as its adapter says them, do not add up"):
        checked(adapter)


@pytest.mark.parametrize("change", [{"post": torch.relu}, {"scale": None}, {"shortcut": None}])
def test_an_analysis_refuses_a_wrong_adapter(change):
    block = Halved()
    block.adapter = lambda _: dataclasses.replace(RIGHT, **change)
    model = nn.Sequential(block, nn.Flatten(), nn.Linear(192, 3))
    inputs, targets = torch.randn(2, 3, 8, 8), torch.tensor([0, 2])
    for analyse in (
        lambda: rl.Deletion(model).analyze((inputs, targets), show_progress=False),
        lambda: rl.evaluate(model, (inputs, targets), [[-1]], show_progress=False),
        lambda: rl.PathGradient(model).analyze((inputs, targets), show_progress=False),
        lambda: rl.BlockStatistics(model).analyze((inputs, targets), show_progress=False),
        lambda: rl.Deletion(model).attribute(inputs, targets),
        lambda: rl.PathGradient(model).attribute(inputs, targets),
    ):
        with pytest.raises(rl.AdapterError, match=r"block '0' \(Halved\) is not post"):
            analyse()


def test_path_gradients_of_a_wrong_adapter_are_refused():
    block = Halved()
    halved = lambda t: block.side(t) / 2 + block.side(t).detach() / 2  # noqa: E731  # wrong in backward only
    block.adapter = lambda _: dataclasses.replace(RIGHT, shortcut=halved)
    model = nn.Sequential(block, nn.Flatten(), nn.Linear(192, 3))
    data = torch.randn(2, 3, 8, 8), torch.tensor([0, 2])
    with pytest.raises(rl.AdapterError, match=r"expected the ordinary gradient .*an adapter is wrong"):
        rl.PathGradient(model).analyze(data, show_progress=False)
    block.adapter = lambda _: RIGHT
    right = rl.PathGradient(model).analyze(data, show_progress=False)
    assert right.convergence_delta < 1e-5
    for delta, end in ((2e-7, ", except for at most 2e-07 of it."), (0.0, ".")):
        said = " ".join(summarise(right.assign(convergence_delta=delta)).split())
        assert f"all lengths together are the gradient{end}" in said
