import dataclasses
from functools import partial

import models
import pytest
import torch
from timm.layers import FilterResponseNormTlu2d, create_conv2d
from timm.models import resnetv2
from torch.nn import functional as F

import resnet_lesion as rl
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
