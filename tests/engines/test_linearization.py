import dataclasses
from itertools import product

import numpy as np
import pytest
import timm
import torch
from helpers import models
from helpers import reference_gradient as reference
from torch import nn
from torch.nn import functional as F

import resnet_lesion as rl
from resnet_lesion.engines.linearization import (
    BlockGraph,
    Linearization,
    at_output,
    full_gradient,
    in_range,
    path_plan,
)

SHAPE = (3, 32, 32)
FIRST = 5  # of 8 blocks: what follows has 8 paths


def losses(targets):
    return lambda logits: F.cross_entropy(logits, targets, reduction="none")


def linearized(model, x, targets, **options):
    network = rl.wrap(model)
    with network.isolated():
        return network, Linearization(network, x, losses(targets), **options)


def close(found, expected, tolerance=1e-12):
    assert float((found - expected).abs().max()) <= tolerance * float(expected.abs().max())


@pytest.mark.parametrize("n_gradients", [1, 3, 9])
@pytest.mark.parametrize("name", reference.BUILD)
def test_the_gradients_of_each_length_are_the_sums_over_its_paths(name, n_gradients):
    model, x, targets = reference.build(name), models.images(2, SHAPE), models.labels(2)
    paths = reference.all_path_gradients(model, x, reference.cross_entropy(targets), wrt=FIRST)
    network, linear = linearized(model, x, targets, n_gradients=n_gradients)
    with network.isolated():
        *_, (block, gradients) = linear.by_length(len(network) - FIRST, FIRST)
        short = [found for _, found in linear.by_length(1, FIRST)][-1]
    assert block == FIRST
    expected = [sum(g for path, g in paths.items() if sum(path) == k) for k in range(len(network) - FIRST + 1)]
    close(gradients / linear.scale, torch.stack(expected))
    close(short / linear.scale, torch.stack(expected[:2]))


@pytest.mark.parametrize("n_gradients", [1, 4, 8])
@pytest.mark.parametrize("name", reference.BUILD)
def test_gradients_along_single_paths(name, n_gradients):
    model, x, targets = reference.build(name), models.images(2, SHAPE), models.labels(2)
    expected = reference.all_path_gradients(model, x, reference.cross_entropy(targets), wrt=FIRST)
    network, linear = linearized(model, x, targets, n_gradients=n_gradients)
    # in an order that shares nothing with that of the streams, one of them twice
    paths = np.array([*expected])[[6, 1, 0, 7, 3, 5, 2, 4, 1]]
    plan = path_plan(np.where(paths, np.arange(FIRST, len(network)), -1))
    with network.isolated():
        found = linear.along(plan, FIRST) / linear.scale
        again = linear.along(plan, FIRST) / linear.scale  # through the graphs that were kept
    assert len(found) == 8
    close(found[plan.stream], torch.stack([expected[tuple(path)] for path in paths.tolist()]))
    assert torch.equal(again, found)


@pytest.mark.parametrize("name", models.CASES)
def test_all_lengths_together_are_the_gradient_at_every_block_and_at_the_input(name):
    model, (x, targets) = models.build(name), models.data(2, name)
    network, linear = linearized(model, x, targets, n_gradients=3)
    with network.isolated():
        for block, gradients in linear.by_length(len(network)):
            whole = full_gradient(network, x, losses(targets), (), block)
            close(gradients.sum(0) / linear.scale, whole)
        leaf = x.clone().requires_grad_()
        F.cross_entropy(model(leaf), targets, reduction="sum").backward()
        close(linear.before(0, gradients).sum(0) / linear.scale, leaf.grad)
        assert torch.equal(full_gradient(network, x, losses(targets), (), None), leaf.grad)


@pytest.mark.parametrize("name", reference.BUILD)
def test_the_whole_gradient_at_a_block(name):
    model, x, targets = reference.build(name), models.images(2, SHAPE), models.labels(2)
    paths = reference.all_path_gradients(model, x, reference.cross_entropy(targets), wrt=FIRST)
    network = rl.wrap(model)
    close(full_gradient(network, x, losses(targets), (), FIRST), sum(paths.values()))


class Small(nn.Module):
    """``tanh(a x + s tanh(b x))``, which has a Jacobian short enough to be written out."""

    def __init__(self, projected):
        super().__init__()
        self.branch = nn.Linear(3, 3).double()
        self.exit = nn.Tanh()
        self.side = nn.Linear(3, 3).double() if projected else None

    def forward(self, x):
        shortcut = x if self.side is None else self.side(x)
        return torch.tanh(shortcut + 0.5 * self.exit(self.branch(x)))


@pytest.mark.parametrize("projected", [False, True])
@pytest.mark.parametrize("n_gradients", [1, 2, 5])
def test_a_block_carries_gradients_by_its_jacobians(projected, n_gradients):
    torch.manual_seed(0)
    module, x = Small(projected), models.images(2, (3,))
    branch = rl.Branch("branch", "exit", shortcut="side" if projected else None, scale=0.5, post=torch.tanh)
    (block,) = rl.wrap(_registered(module, branch)).blocks
    graph = BlockGraph(block, x, n_gradients)
    arriving = models.images(5, (2, 3), seed=4)  # 5 gradients for each of 2 images
    post, through = graph.post(arriving), graph.branch(arriving)
    around = graph.shortcut(arriving, torch.empty_like(arriving))
    weight, side = (m.weight.detach() if m is not None else torch.eye(3).double() for m in (module.branch, module.side))
    with torch.no_grad():
        inner = module.branch(x)
        total = (x if module.side is None else module.side(x)) + 0.5 * inner.tanh()
    for image, k in product(range(2), range(5)):
        gradient = arriving[k, image]
        close(post[k, image], gradient * (1 - total[image].tanh() ** 2))
        close(through[k, image], 0.5 * (gradient * (1 - inner[image].tanh() ** 2)) @ weight)
        close(around[k, image], gradient @ side)


def _registered(module, branch):
    cls = type("Registered", (type(module),), {})
    rl.register_adapter(cls)(lambda _block: branch)
    module.__class__ = cls
    return nn.Sequential(module)


def test_a_block_whose_exit_does_not_run_once_is_refused():
    block = rl.wrap(models.build()).blocks[0]
    wrong = dataclasses.replace(block, branch=dataclasses.replace(block.branch, exit="relu"))
    with pytest.raises(rl.AdapterError, match="ran its branch exit 'relu' 2 times; expected once"):
        BlockGraph(wrong, models.images(1, (4, 6, 6)), 1)


def test_the_gradient_at_the_output_has_digits_enough():
    logits = models.images(3, (5,))
    expected = torch.softmax(logits, 1) - F.one_hot(targets := models.labels(3), 5)
    torch.testing.assert_close(at_output(logits, losses(targets)), expected, rtol=1e-12, atol=1e-15)
    for dtype in (torch.float32, torch.bfloat16):
        assert at_output(logits.to(dtype), lambda y: 2 * y.float().sum(1)).dtype == torch.float32


def test_gradients_are_brought_into_the_range_of_float16():
    gradients = torch.tensor([[[3e-20, -1e-21], [5e10, 1.0]], [[0.0, 0.0], [1.5, -6.0]]], dtype=torch.float64)
    found, exponents = in_range(gradients, torch.float16)
    assert found.dtype == torch.float16
    assert found.abs().amax(2)[gradients.abs().amax(2) > 0].min() >= 0.5
    assert found.abs().max() <= 1
    for k, image in product(range(2), range(2)):
        exact = gradients[k, image] / 2.0 ** int(exponents[k, image])
        torch.testing.assert_close(found[k, image].double(), exact, rtol=2**-11, atol=2**-25)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_other_types_have_range_enough(dtype):
    gradients = torch.tensor([[[3e-20, -1e-21]]])
    found, exponents = in_range(gradients, dtype)
    assert exponents is None
    assert torch.equal(found, gradients.to(dtype))


def test_under_autocast_to_float16_gradients_are_scaled_too():
    with torch.autocast("cpu", torch.float16):
        found, exponents = in_range(torch.tensor([[[3e-20]]]), torch.float32)
    assert exponents.tolist() == [[-64]]
    assert found.item() == pytest.approx(3e-20 * 2.0**64)


def test_gradient_checkpointing_is_refused():
    model = timm.create_model("resnet18", num_classes=5)
    model.set_grad_checkpointing(True)
    with pytest.raises(ValueError, match="gradient checkpointing"):
        linearized(model, torch.zeros(1, 3, 32, 32), torch.tensor([0]))


class Bypassed(models.Net):
    """Some of the stem's output reaches the second stage by another way than the blocks."""

    def forward(self, x):
        x = self.stem(x)
        return self.head(self.stage2(self.stage1(x) + x).mean((2, 3)))


class BypassedToTheEnd(models.Net):
    """What the first stage is given reaches the output."""

    def forward(self, x):
        x = self.stem(x)
        return self.head(self.stage2(self.stage1(x)).mean((2, 3)) + x.mean())


@pytest.mark.parametrize(("net", "where"), [(Bypassed, "'stage2.0'"), (BypassedToTheEnd, "the model's output")])
def test_what_goes_round_the_blocks_is_refused(net, where):
    model = net(models.PostActivation).double()
    snapshot = models.Snapshot(model)
    with pytest.raises(rl.PathsError, match=f"what reaches {where} does not come from the block before it alone"):
        linearized(model, *models.data(2))
    snapshot.check()


class ShortOfABlock(models.Net):
    def forward(self, x):
        return self.head(self.stage2(self.stage1[1:](self.stem(x))).mean((2, 3)))


def test_a_model_that_leaves_a_block_out_is_refused():
    with pytest.raises(rl.AdapterError, match=r"block 'stage1\.0' ran 0 times"):
        linearized(ShortOfABlock(models.PostActivation).double(), *models.data(2))


def test_further_arguments_are_those_of_each_image():
    class Weighted(models.Net):
        def forward(self, x, weight, factor):
            return factor * weight[:, None] * super().forward(x)

    model = models.randomised(Weighted(models.PostActivation)).double()
    (x, targets), weight = models.data(3), torch.tensor([1.0, -2.0, 0.5]).double()
    network, linear = linearized(model, x, targets, args=(weight, 3.0), n_gradients=9)
    with network.isolated():
        gradients = [found for _, found in linear.by_length(6)][-1]
        found = linear.before(0, gradients).sum(0) / linear.scale
        close(full_gradient(network, x, losses(targets), (weight, 3.0), None), found)
        for i in range(3):
            leaf = x[i : i + 1].clone().requires_grad_()
            F.cross_entropy(model(leaf, weight[i : i + 1], 3.0), targets[i : i + 1]).backward()
            close(found[i : i + 1], leaf.grad)
