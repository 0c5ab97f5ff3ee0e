import dataclasses

import pytest
import torch
from helpers import models
from timm.models import resnet
from torch import nn

import resnet_lesion as rl
from resnet_lesion.blocks.registry import is_block
from resnet_lesion.network.verification import verified_pass

NAMES = [name for name in models.TIMM if not name.startswith("resnetv2")]


@pytest.mark.parametrize("name", NAMES)
def test_the_last_layer_alone_makes_the_branch_zero(name):
    """Delete blocks without hooks: the branch ends in a norm (and a gate), so that a zero norm deletes it."""
    case = models.CASES[name]
    inputs = models.images(2, case.shape)
    network = rl.wrap(models.build(name))
    for i, block in enumerate(network.blocks):
        model = models.build(name)
        last = model.get_submodule(block.layer).get_submodule("bn3" if hasattr(block.module, "bn3") else "bn2")
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        with torch.no_grad():
            expected = model(inputs)
            with network.lesioned(delete=i) as lesioned:
                torch.testing.assert_close(lesioned(inputs), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("options", "exits"),
    [
        ({}, {"bn2"}),
        ({"block_args": {"attn_layer": "se"}}, {"se"}),
        ({"block_args": {"attn_layer": "eca"}}, {"se"}),
        ({"drop_path_rate": 0.1}, {"bn2", "drop_path"}),
        ({"drop_path_rate": 0.1, "block_args": {"attn_layer": "se"}}, {"se", "drop_path"}),
    ],
)
def test_the_branch_ends_where_timm_puts_its_last_module(options, exits):
    network = rl.wrap(models.BASIC(**options))
    assert {branch.exit for branch in network.branches} == exits
    assert {branch.post for branch in network.branches} == {"act2"}


def test_projections():
    network = rl.wrap(models.BOTTLENECK())
    projected = [index for index, branch in enumerate(network.branches) if branch.shortcut is not None]
    assert projected == [0, 3, 4, 7]
    assert {branch.post for branch in network.branches} == {"act3"}
    assert network.stage.tolist() == [0, 0, 0, 1, 2, 2, 2, 3, 3]


def test_a_subclass_of_timms_is_known_unless_it_computes_something_else():
    class Renamed(resnet.BasicBlock):
        pass

    class Changed(resnet.BasicBlock):
        def forward(self, x):
            return super().forward(x) + 1

    assert rl.wrap(models.randomised(resnet.ResNet(Renamed, (1, 1, 1, 1)))).branches[0].exit == "bn2"
    assert is_block(Changed(4, 4))
    with pytest.raises(TypeError, match=r"Changed overrides the forward of timm\.models\.resnet\.BasicBlock"):
        rl.wrap(resnet.ResNet(Changed, (1, 1, 1, 1)))


def test_verify_tells_a_zero_branch_from_a_deleted_one():
    # timm's blocks are the identity at initialisation: an exit too early goes unnoticed there, and only there
    name = "resnet basic eca, drop_path"
    network = rl.wrap(models.build(name))
    branch = dataclasses.replace(network.branches[1], exit="conv2")
    blocks = (network.blocks[0], dataclasses.replace(network.blocks[1], branch=branch), *network.blocks[2:])
    with network.isolated(), torch.no_grad(), pytest.raises(rl.AdapterError, match=r"'layer1\.1'"):
        verified_pass(network.model, blocks, [], models.images(2, models.CASES[name].shape))
