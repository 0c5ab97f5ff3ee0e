import pytest
import timm
import torch
from helpers import models
from torch import nn

import resnet_lesion as rl

NAMES = [name for name in models.TIMM if name.startswith("resnetv2")]


@pytest.mark.parametrize("name", NAMES)
def test_the_last_layer_alone_makes_the_branch_zero(name):
    """Delete blocks without hooks: a zero last convolution (or norm, post-activation) deletes the branch."""
    case = models.CASES[name]
    inputs = models.images(2, case.shape)
    network = rl.wrap(models.build(name))
    for i, block in enumerate(network.blocks):
        model = models.build(name)
        own = model.get_submodule(block.layer)
        last = own.norm3 if hasattr(own, "act3") else own.conv3 if hasattr(own, "conv3") else own.conv2
        nn.init.zeros_(last.weight)
        if last.bias is not None:
            nn.init.zeros_(last.bias)
        # weight standardisation would divide zero weights by their spread of zero
        with torch.no_grad():
            expected = model(inputs)
            with network.lesioned(delete=i) as lesioned:
                torch.testing.assert_close(lesioned(inputs), expected, rtol=1e-10, atol=1e-10)


def test_a_projection_is_fed_the_pre_activation():
    branches = rl.wrap(models.build("resnetv2 basic")).branches
    assert branches[0] == rl.Branch(entry="norm1", exit="drop_path")
    assert branches[2] == rl.Branch(entry="conv1", exit="drop_path", shortcut="downsample", preact="norm1")


def test_post_activation_blocks():
    branches = rl.wrap(models.build("resnetv2 post-activation")).branches
    assert branches[0] == rl.Branch(entry="conv1", exit="drop_path", shortcut="downsample", post="act3")
    assert branches[1] == rl.Branch(entry="conv1", exit="drop_path", post="act3")


def test_timms_own_network():
    model = models.randomised(timm.create_model("resnetv2_18", num_classes=5)).eval()
    network = rl.wrap(model)
    assert network.layers[:3] == ("stages.0.blocks.0", "stages.0.blocks.1", "stages.1.blocks.0")
    assert network.verify(models.images(1, (3, 32, 32))) < 1e-6
