import dataclasses

import pytest
import torch
from helpers import models
from torch import nn

import resnet_lesion as rl
from resnet_lesion.blocks.block import Block, replaced_forwards


@pytest.mark.parametrize("name", models.CASES)
def test_parts_make_the_block_and_leave_its_input_alone(name):
    model = models.build(name)
    x = models.images(2, models.CASES[name].shape)
    inputs, exits = {}, {}
    network = rl.wrap(model)
    for block in network.blocks:
        block.module.register_forward_pre_hook(lambda _module, args, layer=block.layer: inputs.update({layer: args[0]}))
        block.part(block.branch.exit).register_forward_hook(
            lambda _module, _args, output, layer=block.layer: exits.update({layer: output.clone()})
        )
    with torch.no_grad():
        model(x)
        for block in network.blocks:
            before = inputs[block.layer].clone()
            zero = torch.zeros_like(exits[block.layer])
            expected = block.post(block.shortcut(before) + block.scale(zero))
            torch.testing.assert_close(block.without_branch(inputs[block.layer]), expected, rtol=0, atol=0)
            torch.testing.assert_close(inputs[block.layer], before, rtol=0, atol=0)


class Halves(nn.Module):
    """Its shortcut hands on a part of its input: a view that begins somewhere inside."""

    def forward(self, x):
        return torch.relu_(x[:, 1:] + 0)


@pytest.mark.parametrize("shortcut", [None, lambda x: x[:, 1:], lambda x: x.flip(1), nn.Identity()])
def test_an_in_place_post_does_not_reach_the_input(shortcut):
    block = Block("block", Halves(), rl.Branch(entry="", exit="", shortcut=shortcut, post=torch.relu_))
    x = torch.tensor([[-1.0, -2.0, 3.0]])
    y = block.without_branch(x)
    assert x.tolist() == [[-1, -2, 3]]
    assert (y >= 0).all()


def test_entries_are_always_several():
    block = rl.wrap(models.build()).blocks[0]
    assert block.entries == ("conv1",)
    parallel = dataclasses.replace(block.branch, entry=("conv1", "conv2"))
    assert dataclasses.replace(block, branch=parallel).entries == ("conv1", "conv2")


def test_a_part_that_is_not_there_is_named():
    with pytest.raises(rl.AdapterError, match=r"block 'stage1\.0' \(PostActivation\) has no submodule 'conv9'"):
        rl.wrap(models.build()).blocks[0].part("conv9")


def test_a_forward_of_the_users_own_comes_back():
    model = models.build()
    blocks = rl.wrap(model).blocks
    mine = blocks[0].module.forward = lambda x: x + 1

    def interrupt():
        with replaced_forwards({block.module: lambda x: x for block in blocks}):
            assert blocks[0].module(torch.zeros(1)).tolist() == [0]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupt()
    assert vars(blocks[0].module)["forward"] is mine
    assert all("forward" not in vars(block.module) for block in blocks[1:])
