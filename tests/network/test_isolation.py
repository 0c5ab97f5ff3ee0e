import random

import numpy as np
import pytest
import torch
from helpers import models
from torch import nn

import resnet_lesion as rl
from resnet_lesion.network.isolation import isolated

SWAP = [[2, 1, 0, 3, 5, 4], [-1, 1, 1, 3, 4, 5]]
QUIET = {"show_progress": False}

ANALYSES = {
    "evaluate": lambda model, data: rl.evaluate(model, data, SWAP, **QUIET),
    "Deletion.analyze, each": lambda model, data: rl.Deletion(model).analyze(data, **QUIET),
    "Deletion.analyze, many": lambda model, data: rl.Deletion(model).analyze(data, n_deleted=[1, 3], **QUIET),
    "Reorder.analyze": lambda model, data: rl.Reorder(model).analyze(data, n_swaps=[1, 2], n_draws=3, **QUIET),
    "PathGradient.analyze, exact": lambda model, data: rl.PathGradient(model).analyze(data, **QUIET),
    "PathGradient.analyze, sample": lambda model, data: rl.PathGradient(model).analyze(
        data, method="sample", n_draws=2, **QUIET
    ),
    "EffectivePath.analyze": lambda model, data: rl.EffectivePath(model).analyze(data, n_draws=2, **QUIET),
    "BlockStatistics.analyze": lambda model, data: rl.BlockStatistics(model).analyze(data, **QUIET),
    "study": lambda model, data: rl.study(model, data, n_deleted=2, n_swaps=1, n_draws=2, **QUIET),
}
ATTRIBUTIONS = {
    "Deletion.attribute": lambda model, data: rl.Deletion(model).attribute(*data[0]),
    "Reorder.attribute": lambda model, data: rl.Reorder(model).attribute(*data[0], orders=SWAP),
    "PathGradient.attribute": lambda model, data: rl.PathGradient(model).attribute(*data[0], path_length=[1, 2]),
}
ONE_PASS = {
    "verify": lambda model, data: rl.wrap(model).verify(data[0][0]),
    "trace": lambda model, data: rl.wrap(model).trace(data[0][0]),
}
ENTRY_POINTS = ANALYSES | ATTRIBUTIONS | ONE_PASS


class Interrupt(BaseException):
    """What nobody catches by mistake."""


class Batches:
    """Batches that use every global random state on the way, as a loader and its transforms do."""

    def __init__(self, n_batches: int = 2, *, then_fail: bool = False) -> None:
        self.batches, self.then_fail = [models.data(4)] * n_batches, then_fail

    def __getitem__(self, i):
        return self.batches[i]

    def __iter__(self):
        for batch in self.batches:
            torch.rand(1), np.random.rand(1), random.random()  # noqa: NPY002
            yield batch
        if self.then_fail:
            raise Interrupt


def used_model():
    """Build a model in somebody's use: mixed flags, frozen parameters, hooks and attributes of theirs."""
    model, calls = models.build(), []
    model.train()
    model.stage1[0].bn1.eval()
    model.stage2.eval()
    model.stage2[1].bn2.train()
    model.stem.requires_grad_(False)
    model.stage1[1].mine = {"kept": 1}
    model.head.add_module("dropout", nn.Dropout())
    for module in (model, model.stem, model.stage1[1], model.stage1[1].bn2, model.stage2[0].projection):
        module.register_forward_hook(lambda module, _args, _output: calls.append(module))
        module.register_forward_pre_hook(lambda module, _args: calls.append(module))
    model.head.register_full_backward_hook(lambda *_: None)
    return model, calls


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_everything_is_as_it_was(name):
    model, calls = used_model()
    snapshot = models.Snapshot(model)
    ENTRY_POINTS[name](model, Batches())
    snapshot.check()
    assert len(set(calls)) == 5, "the hooks of others were called"


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_everything_is_as_it_was_after_an_exception_in_the_model(name):
    model, _ = used_model()
    calls = []

    def interrupt(module, _args):
        torch.rand(1)
        calls.append(module)
        if len(calls) == (1 if name in ONE_PASS else 3 if name in ANALYSES else 2):
            raise Interrupt

    model.stage2[0].bn2.register_forward_pre_hook(interrupt)
    snapshot = models.Snapshot(model)
    with pytest.raises(Interrupt):
        ENTRY_POINTS[name](model, Batches())
    snapshot.check()


@pytest.mark.parametrize("name", ANALYSES)
@pytest.mark.parametrize("n_batches", [0, 1, 2])
def test_everything_is_as_it_was_after_an_exception_in_the_data(name, n_batches):
    model, _ = used_model()
    snapshot = models.Snapshot(model)
    with pytest.raises(Interrupt):
        ANALYSES[name](model, Batches(n_batches, then_fail=True))
    snapshot.check()


@pytest.mark.parametrize(
    "change",
    [
        lambda network: network.lesioned(delete=["stage1.0", "stage2.0"]),
        lambda network: network.lesioned(order=SWAP[0]),
        lambda network: network.lesioned(order=SWAP[1]),
        lambda network: network.routed([1, 0, 1, 0, 1, 0]),
    ],
)
@pytest.mark.parametrize("fail", [False, True])
def test_everything_is_as_it_was_after_a_context(change, fail):
    model, _ = used_model()
    model.eval()
    snapshot = models.Snapshot(model)
    try:
        with change(rl.wrap(model)) as changed:
            assert changed is model
            assert not changed(models.images(2)).isnan().any()
            if fail:
                raise Interrupt
    except Interrupt:
        assert fail
    snapshot.check()


def test_the_model_is_in_eval_mode_meanwhile():
    model, _ = used_model()
    flags = []
    model.register_forward_hook(lambda *_: flags.extend(module.training for module in model.modules()))
    for analyze in ENTRY_POINTS.values():
        analyze(model, Batches())
    assert flags
    assert not any(flags)


def test_a_model_in_training_mode_gives_what_it_gives_in_eval_mode():
    name = "resnet basic eca, drop_path"  # in training mode, drop_path would delete blocks at random
    model, data = models.build(name), models.data(6, name)
    expected = rl.Deletion(model).analyze(data, **QUIET)
    found = rl.Deletion(model.train()).analyze(data, **QUIET)
    np.testing.assert_array_equal(found.loss, expected.loss)
    assert model.training


def test_no_gradients_are_kept():
    model = models.build()
    inputs, targets = models.data(2)
    inputs.requires_grad_()
    for scores in (
        rl.Deletion(model).attribute(inputs, targets),
        rl.Reorder(model).attribute(inputs, targets, orders=SWAP),
        rl.wrap(model).trace(inputs).output,
    ):
        assert not scores.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_snapshot_sees_every_change():
    def set_flag(model):
        model.stage1[0].bn1.training = False

    def add_hook(model):
        model.stage2[1].register_forward_hook(lambda *_: None)

    def run_in_training_mode(model):
        model.train()(models.images(2))

    def write_the_same(model):
        model.head.weight.data.mul_(1)
        model.stem.bias.detach().copy_(model.stem.bias.detach())

    def freeze(model):
        model.head.weight.requires_grad_(False)

    changes = (set_flag, add_hook, run_in_training_mode, write_the_same, freeze)
    draws = (lambda _: torch.rand(1), lambda _: np.random.rand(), lambda _: random.random())  # noqa: NPY002
    for change in (*changes, *draws):
        model = models.build().train()
        snapshot = models.Snapshot(model)
        change(model)
        with pytest.raises(AssertionError):
            snapshot.check()


@pytest.mark.parametrize("records", [False, True])
def test_gradients_are_possible_inside_and_recorded_as_before(records):
    model = models.build()
    with torch.inference_mode():
        with isolated(model):
            assert not torch.is_inference_mode_enabled()
            assert not torch.is_grad_enabled()
            with torch.enable_grad():
                assert model(models.images(1)).requires_grad
        assert torch.is_inference_mode_enabled()
    with torch.set_grad_enabled(records):
        with isolated(model):
            assert torch.is_grad_enabled() == records
        assert torch.is_grad_enabled() == records


def test_isolated_nests():
    model, _ = used_model()
    snapshot = models.Snapshot(model)
    with isolated(model):
        inner = models.Snapshot(model)
        with isolated(model):
            torch.rand(1)
        inner.check()
        assert not model.training
    snapshot.check()


class Restless(nn.Module):
    """Changes its buffers in eval mode in every way there is."""

    def __init__(self, body):
        super().__init__()
        self.body = body
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.register_buffer("largest", torch.zeros(0, dtype=torch.float64))
        self.register_buffer("last", None, persistent=False)
        self.register_buffer("nothing", torch.tensor([torch.nan, 1.0]))

    def forward(self, x):
        y = self.body(x)
        self.calls += 1
        self.largest.data = y.detach().abs().amax()[None]
        self.last = y.detach()
        self.register_buffer("another", torch.ones(1))
        return y


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_buffers_are_as_before_whatever_the_model_does_in_eval_mode(name):
    model = Restless(models.build())
    before, calls = [*dict(model.named_buffers())], model.calls
    ENTRY_POINTS[name](model, Batches())
    assert [*dict(model.named_buffers())] == before
    assert model.calls is calls
    assert (int(calls), model.largest.shape, model.last) == (0, (0,), None)
