import copy
import dataclasses
import pickle
from itertools import permutations

import numpy as np
import pytest
import torch
from helpers import models
from torch import nn

import resnet_lesion as rl
from resnet_lesion.blocks.block import Block, has_hooks, in_place_of_forward, replaced_forwards


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


def plus(module, number):
    """Return a function that adds a number to what the module's forward gives as it stands now."""
    below = module.forward
    return lambda x: below(x) + number


@pytest.mark.parametrize("own", [None, lambda x: x * 10])
@pytest.mark.parametrize("order", [*permutations(range(3))])
def test_replaced_forwards_end_in_any_order(order, own):
    module = nn.Identity()
    if own is not None:
        module.forward = own
    start, numbers, x = (10.0 if own else 1.0), [1, 20, 300], torch.ones(1)
    contexts = []
    for number in numbers:
        contexts.append(replaced_forwards({module: plus(module, number)}))
        contexts[-1].__enter__()
    assert module(x).item() == start + 321
    for i in order:
        contexts[i].__exit__(None, None, None)
        numbers[i] = 0
        assert module(x).item() == start + sum(numbers)
    assert vars(module).get("forward") is own
    assert has_hooks(module) == (own is not None)


def test_what_took_a_replaced_forward_calls_what_is_below_once_the_context_has_ended():
    module, x = nn.Identity(), torch.ones(1)
    with replaced_forwards({module: plus(module, 1)}):
        taken = module.forward
        assert taken(x).item() == 2
    assert taken(x).item() == 1


def test_the_functions_in_place_of_a_forward_are_listed_the_last_one_first():
    module, first, second = nn.Identity(), torch.relu, torch.tanh
    assert [*in_place_of_forward(module)] == []
    with replaced_forwards({module: first}), replaced_forwards({module: second}):
        assert [*in_place_of_forward(module)] == [second, first]
        with replaced_forwards({module: module.forward}):
            assert [*in_place_of_forward(module)] == [second, second, first]
    module.forward = first
    assert [*in_place_of_forward(module)] == []


def patched(module, number):
    """Patch a module as other libraries do."""
    before = module.forward
    module.forward = lambda x: before(x) + number


def test_what_other_code_patches_in_a_context_stays_and_is_said():
    modules, x = [nn.Identity(), nn.Identity(), nn.Identity()], torch.ones(1)

    def patch():
        with replaced_forwards({module: plus(module, 1) for module in modules}):
            patched(modules[1], 10)
            assert modules[1](x).item() == 12

    with pytest.raises(RuntimeError, match="expected the forward of Identity as it was put there"):
        patch()
    assert [module(x).item() for module in modules] == [1, 11, 1]
    assert [has_hooks(module) for module in modules] == [False, True, False]


def test_what_other_code_patches_in_a_context_does_not_hide_an_error():
    module = nn.Identity()

    def patch():
        with replaced_forwards({module: torch.relu}):
            patched(module, 10)
            raise KeyError

    with pytest.raises(KeyError) as caught:
        patch()
    assert "other code has replaced it" in caught.value.__notes__[0]


def test_what_other_code_patches_while_a_generator_holds_a_context_is_said():
    module = nn.Identity()

    def hold():
        with replaced_forwards({module: torch.relu}):
            yield

    held = hold()
    next(held)
    patched(module, 10)
    with pytest.raises(RuntimeError, match="other code has replaced it"):
        held.close()


@pytest.mark.parametrize("copied", [copy.deepcopy, pickle.dumps])
def test_a_module_is_not_copied_with_what_a_context_put_on_it(copied):
    model = nn.Sequential(nn.Linear(1, 1))
    with replaced_forwards({model[0]: torch.relu}), pytest.raises(RuntimeError, match="before the context begins"):
        copied(model)
    assert copied(model)


class AddsInPlace(nn.Module):
    """``exit(2 x) + x``, where the addition overwrites what the exit returned; the exit may run more than once."""

    def __init__(self, exit_, runs=1):
        super().__init__()
        self.entry, self.exit, self.runs = nn.Identity(), exit_, runs

    def forward(self, x):
        residual = self.entry(2 * x)
        for _ in range(self.runs):
            residual = self.exit(residual)
        residual += x
        return residual


def adding(exit_, runs=1):
    return Block("there", AddsInPlace(exit_, runs), rl.Branch("entry", "exit"))


X = torch.tensor([[-1.0, 0.0, 3.0]])


@pytest.mark.parametrize("exit_", [nn.Identity(), nn.ReLU()])
@pytest.mark.parametrize("gradients", [False, True])
def test_the_kept_residual_is_what_the_exit_returned(exit_, gradients):
    block = adding(exit_)
    with torch.set_grad_enabled(gradients), block.kept_residual() as take:
        y = block.module(X.clone().requires_grad_(gradients))
    expected = exit_(2 * X)
    residual = take()
    assert torch.equal(residual, expected)
    assert torch.equal(y, expected + X)
    assert residual.requires_grad == gradients


def test_the_kept_residual_has_its_gradient_where_the_block_overwrites_what_its_exit_needs():
    block, leaf = adding(nn.Sigmoid()), X.clone().requires_grad_()
    with block.kept_residual() as take:
        block.module(leaf)
    (found,) = torch.autograd.grad(take().sum(), leaf)
    expected = [2 * s * (1 - s) for s in (1 / (1 + np.exp(-2 * x)) for x in X.double().flatten().tolist())]
    torch.testing.assert_close(found, torch.tensor([expected], dtype=found.dtype))


def test_without_gradients_the_block_goes_on_with_its_own_tensor():
    """Were it given a copy, a block that overwrites its input would pass for one that does not."""
    seen, block = [], adding(nn.Identity())
    block.module.exit.register_forward_hook(lambda _module, _args, output: seen.append(output))
    with torch.no_grad(), block.kept_residual():
        y = block.module(X)
    assert y is seen[0]


@pytest.mark.parametrize("runs", [0, 2])
def test_an_exit_that_does_not_run_once_is_refused(runs):
    block = adding(nn.Identity(), runs)
    message = rf"block 'there' \(AddsInPlace\) ran its branch exit 'exit' {runs} times; expected once\. .*see docs"
    with block.kept_residual() as take:
        block.module(X)
        with pytest.raises(rl.AdapterError, match=message):
            take()


def test_a_residual_that_was_taken_is_kept_no_longer():
    block = adding(nn.Identity())
    with block.kept_residual() as take:
        for factor in (1.0, 2.0):
            block.module(factor * X)
            assert torch.equal(take(), 2 * factor * X)
        with pytest.raises(rl.AdapterError, match="0 times"):
            take()
    assert not has_hooks(block.module.exit)


def test_nothing_is_left_behind_after_an_exception():
    block = adding(nn.Identity())

    def interrupt():
        with block.kept_residual():
            assert has_hooks(block.module.exit)
            raise KeyError

    with pytest.raises(KeyError):
        interrupt()
    assert not has_hooks(block.module.exit)


@pytest.mark.parametrize(
    "change",
    [
        lambda module: module.register_forward_hook(lambda *_: None),
        lambda module: module.register_forward_pre_hook(lambda *_: None),
        lambda module: module.register_full_backward_hook(lambda *_: None),
        lambda module: module.register_full_backward_pre_hook(lambda *_: None),
        lambda module: setattr(module, "forward", torch.relu),
    ],
)
def test_what_makes_a_module_do_more_than_its_class(change):
    module = nn.Identity()
    assert not has_hooks(module)
    change(module)
    assert has_hooks(module)
