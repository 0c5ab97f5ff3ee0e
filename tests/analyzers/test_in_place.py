"""Models that work in place around their blocks, which plain PyTorch trains without complaint."""

import numpy as np
import pytest
import torch
import xarray as xr
from helpers import models, reference
from helpers.analyses import ANALYSES, QUIET
from torch import nn
from torch.nn import functional as F

import resnet_lesion as rl

N = 5


class Around(models.Net):
    """Something happens to the input, behind the stem, behind every block, between the stages and before the head.

    Nothing that happens is the same if it happens twice.
    """

    in_place = True

    def __init__(self, block):
        super().__init__(block)
        self.shift = nn.Parameter(torch.tensor(0.3))

    def forward(self, x):
        x = self.change(self.stem(self.change(x, lambda x: x.mul_(0.7))), leak)
        for block in self.stage1[:-1]:
            x = self.change(block(x), leak)
        x = self.change(self.stage1[-1](x), lambda x: x.mul_(0.8).add_(self.shift))
        for block in self.stage2[:-1]:
            x = self.change(block(x), F.elu_)
        x = self.change(self.stage2[-1](x), lambda x: x.mul_(1.5))
        return self.change(self.head(x.mean((2, 3))), lambda x: x.mul_(2))

    def change(self, x, function):
        return function(x if self.in_place else x.clone())


def leak(x):
    return F.leaky_relu_(x, 0.4)


class OutOfPlace(Around):
    """The same, in copies."""

    in_place = False


class Bare(Around):
    """The first block is given the input itself."""

    def __init__(self, block):
        super().__init__(block)
        self.stage1 = nn.Sequential(block(3, 3, 1), block(3, 3, 1), block(3, 3, 1))
        self.stage2[0] = block(3, 6, 2)

    def forward(self, x):
        for block in (*self.stage1, *self.stage2):
            x = self.change(block(x), leak)
        return self.head(x.mean((2, 3)))


class BareOutOfPlace(Bare):
    """The same, in copies."""

    in_place = False


BLOCKS = {name: case.build().stage1[0].__class__ for name, case in models.HAND_BUILT.items()}
TRAINS, OF_LESIONS = "pre-activation", ("evaluation", "deletion", "random_deletion", "reorder")
NETS = [(Around, OutOfPlace), (Bare, BareOutOfPlace)]


def build(net, name):
    return models.randomised(net(BLOCKS[name])).double().eval()


def check_close(found, expected):
    xr.testing.assert_allclose(found.drop_attrs(), expected.drop_attrs(), rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize(
    ("name", "analysis"),
    # behind a ReLU, whose result its gradient needs, plain PyTorch can do nothing in place either
    [(name, analysis) for name in BLOCKS for analysis in ANALYSES if name == TRAINS or analysis in OF_LESIONS],
)
@pytest.mark.parametrize("nets", NETS, ids=["around", "bare"])
def test_every_analysis_is_that_of_a_model_that_copies(nets, name, analysis):
    (model, twin), data = (build(net, name) for net in nets), models.data(N)
    before = data[0].clone()
    check_close(*(ANALYSES[analysis](m, data) for m in (model, twin)))
    assert torch.equal(data[0], before)


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("net", [Around, Bare])
@pytest.mark.parametrize("at_once", [None, 1])
def test_lesions_equal_a_naive_loop(net, name, at_once):
    model, (inputs, targets) = build(net, name), models.data(N)
    rows = [[2, 1, 0, 3, 4, 5], [-1, 1, 1, 3, 4, 4], [-1] * 6, [0, -1, -1, 3, -1, -1], [*range(6)]]
    expected = torch.stack([reference.lesioned(model, models.CASES[name], row, inputs.clone()) for row in rows])
    counts = reference.counts(model, expected, inputs.clone(), targets)
    found = rl.evaluate(model, (inputs, targets), rows, perturbations_per_eval=at_once, **QUIET)
    np.testing.assert_array_equal(found.correct, counts["correct"])
    np.testing.assert_allclose(found.loss, counts["loss"], rtol=1e-12)
    lost = rl.Reorder(model).attribute(inputs, targets, orders=rows)
    score = expected[:, range(N), targets]
    torch.testing.assert_close(lost, (score[-1] - score).T, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("nets", NETS, ids=["around", "bare"])
def test_gradients_and_checks(nets):
    (model, twin), (inputs, targets) = (build(net, TRAINS) for net in nets), models.data(N)
    before = inputs.clone()
    assert rl.wrap(model).verify(inputs) < 1e-14
    assert rl.testing.check_adapter(model, inputs) < 1e-12
    accelerated = rl.accelerate(model, inputs)
    torch.testing.assert_close(
        rl.Deletion(accelerated).attribute(inputs, targets), rl.Deletion(twin).attribute(inputs, targets)
    )
    leaf = inputs.clone().requires_grad_()
    twin(leaf)[range(N), targets].sum().backward()
    found, delta = rl.PathGradient(model).attribute(inputs, targets, return_convergence_delta=True)
    torch.testing.assert_close(found, leaf.grad, rtol=1e-10, atol=1e-12)
    assert float(delta.max()) < 1e-12
    for length in range(7):
        torch.testing.assert_close(
            *(rl.PathGradient(m).attribute(inputs, targets, path_length=length) for m in (model, twin)),
            rtol=1e-10,
            atol=1e-12,
        )
    assert torch.equal(inputs, before)


@pytest.mark.parametrize("nets", NETS, ids=["around", "bare"])
def test_own_code_on_a_lesioned_or_routed_model(nets):
    """Training on, with blocks deleted or gradients along one path, gives the gradients of a model that copies."""
    (model, twin), (inputs, targets) = (build(net, TRAINS) for net in nets), models.data(N)

    def gradients(m, context):
        m.zero_grad()
        with context(rl.wrap(m)) as changed:
            F.cross_entropy(changed(given := inputs.clone()), targets).backward()
        assert torch.equal(given, inputs) or (nets[0] is Around and m is model)
        return [p.grad for p in m.parameters() if p.grad is not None]

    for context in (
        lambda network: network.lesioned(delete=[0, 1]),
        lambda network: network.lesioned(delete=[*range(6)]),
        lambda network: network.lesioned(order=[1, 0, 2, 3, 4, -1]),
        lambda network: network.routed([1, 0, 1, 0, 1, 0]),
        lambda network: network.routed([0] * 6),
    ):
        found, expected = gradients(model, context), gradients(twin, context)
        assert len(found) == len(expected) > 0
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-13)


class KeepsItsInput(models.Net):
    """A long skip around a stage whose output is worked on in place; the stage returns its input if all is deleted."""

    def forward(self, x):
        x = self.stem(x)
        y = F.leaky_relu_(self.stage1(x), 0.4)
        return self.head(self.stage2(y + x).mean((2, 3)))


@pytest.mark.filterwarnings("ignore:lesions are run one by one")
def test_what_the_model_keeps_is_not_written_into():
    model, inputs = build(KeepsItsInput, "pre-activation"), models.images(3)
    rows = [[-1, -1, -1, 3, 4, 5], [-1, -1, 2, 3, 4, 5]]
    expected = reference.logits(model, models.CASES["pre-activation"], rows, inputs)
    network = rl.wrap(model)
    with torch.no_grad():
        for row, logits in zip(rows, expected, strict=True):
            with network.lesioned(order=row):
                torch.testing.assert_close(model(inputs), logits, rtol=1e-12, atol=1e-12)
    result = rl.evaluate(model, (inputs, expected[0].argmax(1)), rows, perturbations_per_eval=1, **QUIET)
    assert int(result.correct[0]) == 3


@pytest.mark.filterwarnings("ignore:lesions are run one by one")
def test_further_arguments_are_left_alone():
    class Weighted(models.Net):
        def forward(self, x, weight, factor):
            return super().forward(x) * weight.mul_(2)[:, None] * factor.add_(1)

    model = models.randomised(Weighted(models.PostActivation)).double().eval()
    inputs, weight, factor = models.images(3), torch.tensor([1.0, -2.0, 0.5]).double(), torch.tensor(3.0).double()
    with torch.no_grad():
        whole = model(inputs, weight.clone(), factor.clone())[:, 1]
    found = rl.Deletion(model).attribute(inputs, 1, (weight, factor), perturbations_per_eval=1)
    expected = []
    for i in range(6):
        with torch.no_grad(), rl.wrap(model).lesioned(delete=[i]):
            expected.append(whole - model(inputs, weight.clone(), factor.clone())[:, 1])
    torch.testing.assert_close(found, torch.stack(expected, 1), rtol=1e-10, atol=1e-12)
    leaf = inputs.clone().requires_grad_()
    model(leaf, weight.clone(), factor.clone())[:, 1].sum().backward()
    found = rl.PathGradient(model).attribute(inputs, 1, (weight, factor))
    torch.testing.assert_close(found, leaf.grad, rtol=1e-10, atol=1e-12)
    assert (weight.tolist(), factor.item()) == ([1.0, -2.0, 0.5], 3.0)
