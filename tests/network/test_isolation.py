import copy
import gc
import pickle
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import permutations

import numpy as np
import pytest
import torch
from helpers import models
from helpers.chains import TOKENS, Transformer
from torch import nn

import resnet_lesion as rl
from resnet_lesion.network import isolation
from resnet_lesion.network.isolation import isolated, reserved

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


def post_activation():
    model, _ = used_model()
    model.eval()
    model.head.dropout.train()  # a flag that isolated changes, though the module never runs
    return model, models.images(2)


def transformer():
    return models.randomised(Transformer()).double().eval(), models.images(2, (TOKENS, 4))


FITS = {post_activation: [2, 1, 0, 3, 5, 4], transformer: [2, 3, 0, 1, 5, 4]}


def contexts(build):
    return [
        lambda model: rl.wrap(model).lesioned(delete=[1]),
        lambda model: rl.wrap(model).isolated(),
        lambda model: rl.wrap(model).lesioned(order=FITS[build]),
        lambda model: rl.wrap(model).lesioned(delete=[0, 4]),
    ]


@pytest.mark.parametrize("build", FITS)
@pytest.mark.parametrize("order", [*permutations(range(4))])
def test_contexts_end_in_any_order(build, order):
    (model, inputs), (other, _) = build(), build()
    snapshot, opened = models.Snapshot(model), {}
    for i, make in enumerate(contexts(build)):
        opened[i] = make(model)
        opened[i].__enter__()
    for ended in order:
        opened.pop(ended).__exit__(None, None, None)
        with torch.no_grad(), ExitStack() as stack:
            for i in opened:
                stack.enter_context(contexts(build)[i](other))
            assert torch.equal(model(inputs), other(inputs)), "only what is still open holds"
    snapshot.check()


@pytest.mark.parametrize("first", [0, 1])
def test_flags_and_random_states_are_restored_by_the_last_context_to_end(first):
    model, _ = used_model()
    snapshot, opened = models.Snapshot(model), [isolated(model), isolated(model)]
    for context in opened:
        context.__enter__()
        torch.rand(1), np.random.rand(1), random.random()  # noqa: NPY002
    opened[first].__exit__(None, None, None)
    assert not any(module.training for module in model.modules()), "the other one is still open"
    torch.rand(1), np.random.rand(1), random.random()  # noqa: NPY002
    opened[1 - first].__exit__(None, None, None)
    snapshot.check()


@pytest.mark.parametrize("copied", [copy.deepcopy, pickle.dumps])
@pytest.mark.parametrize(
    "change", [lambda network: network.lesioned(delete=[1]), lambda network: network.routed([1, 0, 1, 1, 1, 1])]
)
def test_a_copy_is_not_changed_for_ever(change, copied):
    model = models.build()
    network = rl.wrap(model)
    with change(network), pytest.raises(RuntimeError, match="Copy it before the context begins or after it has ended"):
        copied(model)
    with change(network), pytest.raises(RuntimeError, match="Copy it before the context begins or after it has ended"):
        rl.accelerate(network, models.images(2))
    twin = copy.deepcopy(model)
    models.Snapshot(twin).check()
    assert torch.equal(twin(models.images(2)), model(models.images(2)))


def in_thread(function, *args):
    """Call a function in a thread of its own, which has ended when its result is there."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function, *args).result(timeout=60)


def held(network):
    """Hold a lesion open as long as the generator lives."""
    with network.lesioned(delete=[1]):
        yield


def closed_by_another_thread(holder):
    in_thread(holder.pop().close)


def closed_by_this_thread(holder):
    holder.pop().close()


def collected(holder):
    holder[0:1] = []
    gc.collect()


@pytest.mark.parametrize("opened_by", [in_thread, lambda function, *args: function(*args)])
@pytest.mark.parametrize("end", [closed_by_another_thread, closed_by_this_thread, collected])
def test_a_context_that_a_generator_holds_ends_in_any_thread(opened_by, end):
    model, data = models.build(), models.data(4)
    snapshot, network = models.Snapshot(model), rl.wrap(model)
    expected = rl.Deletion(model).analyze(data, **QUIET)
    holder = [held(network)]
    opened_by(next, holder[0])
    end(holder)
    snapshot.check()
    for run in (in_thread, lambda function: function()):
        assert run(lambda: rl.Deletion(network).analyze(data, **QUIET)).loss.equals(expected.loss)
    snapshot.check()


class Wrapper(nn.Module):
    """A model around another one."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x)


def sharing_blocks(model):
    other = copy.deepcopy(model)
    other.stage2[1] = model.stage2[1]
    return other


RELATED = {"the same": lambda model: model, "its wrapper": Wrapper, "one with a block of it": sharing_blocks}


@pytest.mark.parametrize("related", RELATED)
def test_a_context_of_another_thread_is_refused_not_seen(related):
    model, data = models.build(), models.data(4)
    network, other = rl.wrap(model), rl.wrap(RELATED[related](model))
    uses = [
        lambda: rl.Deletion(other).analyze(data, **QUIET),
        lambda: other.trace(data[0]),
        lambda: other.lesioned(delete=[1]).__enter__(),
        lambda: other.routed([1] * 6).__enter__(),
    ]
    snapshot = models.Snapshot(other.model)
    for context in (network.lesioned(delete=[4]), network.routed([1] * 6)):
        with context:
            for use in uses:
                with pytest.raises(RuntimeError, match=r"thread 'MainThread' has a context \(lesioned, routed\) open"):
                    in_thread(use)
            rl.Deletion(other).analyze(data, **QUIET)  # in the same thread contexts nest
    in_thread(uses[0])
    snapshot.check()


def until_one_waits():
    """Return once another thread waits for its turn."""
    for _ in range(6000):
        if isolation._waiting:
            return
        time.sleep(0.01)
    raise AssertionError("no thread waits")


def loss(network, data):
    return rl.Deletion(network).analyze(data, **QUIET).loss.values


def lesioned_outputs(network, data):
    with torch.no_grad(), network.lesioned(delete=[1]) as model:
        return model(data[0]).numpy()


@pytest.mark.parametrize("related", RELATED)
@pytest.mark.parametrize("second", [loss, lesioned_outputs])
def test_threads_take_turns(related, second):
    model, (x, y) = models.build(), models.data(4)
    other = RELATED[related](model)
    alone = [loss(model, (x, y)), second(rl.wrap(other), (x, y))]
    snapshot, log = models.Snapshot(other), []
    inside = threading.Event()

    class Data:
        def __iter__(self):
            log.append("first begins")
            inside.set()
            until_one_waits()
            yield x, y
            log.append("first ends")

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(loss, model, Data())
        assert inside.wait(60)
        later = pool.submit(second, rl.wrap(other), (x, y))
        later.add_done_callback(lambda _: log.append("second has ended"))
        found = [first.result(60), later.result(60)]
    assert log == ["first begins", "first ends", "second has ended"]
    for value, expected in zip(found, alone, strict=True):
        np.testing.assert_array_equal(value, expected)
    snapshot.check()


def test_two_threads_that_take_two_models_in_opposite_orders_do_not_wait_for_ever():
    models_, both_inside = [models.build(), models.build()], threading.Barrier(2, timeout=60)

    def take(first, second):
        with isolated(first):
            both_inside.wait()
            with isolated(second):
                return "both"

    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(take, *models_), pool.submit(take, *reversed(models_))]
        found = [future.exception(60) or future.result() for future in futures]
    (error,) = [value for value in found if isinstance(value, RuntimeError)]
    assert "take the models in the same order" in str(error)
    assert "both" in found


def test_a_thread_that_has_stopped_waiting_is_not_held_against_others():
    """One thread keeps the second model and waits for the first; the other one hands it over and takes the second."""
    first, second = models.build(), models.build()

    def keep_second_and_wait(inside):
        with isolated(second):
            inside.wait()
            with isolated(first):
                pass

    def hand_over(inside):
        with isolated(first):
            inside.wait()
            until_one_waits()
        with isolated(second):
            pass

    with ThreadPoolExecutor(2) as pool:
        for _ in range(50):
            inside = threading.Barrier(2, timeout=60)
            for future in [pool.submit(keep_second_and_wait, inside), pool.submit(hand_over, inside)]:
                future.result(60)


def test_what_a_thread_left_open_when_it_ended_is_said():
    model = models.build()

    def hold():
        with isolated(model):
            yield

    holder = hold()
    in_thread(next, holder)
    with pytest.raises(RuntimeError, match=r"has ended in the middle of an analysis of it\. Close what it left"):
        rl.wrap(model).trace(models.images(2))
    holder.close()
    rl.wrap(model).trace(models.images(2))


def test_a_thread_in_the_background_does_not_rewind_the_random_states():
    """The main thread draws while an analysis runs: no number twice."""
    model, (x, y) = models.build(), models.data(4)
    torch.manual_seed(0)
    expected = torch.rand(6)
    torch.manual_seed(0)
    begun, drawn = threading.Event(), threading.Event()

    class Data:
        def __iter__(self):
            begun.set()
            assert drawn.wait(60)
            yield x, y

    found = [torch.rand(2)]
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(loss, model, Data())
        assert begun.wait(60)
        found.append(torch.rand(2))
        drawn.set()
        future.result(60)
    found.append(torch.rand(2))
    assert torch.equal(torch.cat(found), expected)


def test_a_model_is_free_again_when_another_thread_ends_the_context():
    model = models.build()
    context = reserved(model, ends_by_itself=False)
    in_thread(context.__enter__)
    with pytest.raises(RuntimeError, match="has a context"):
        rl.wrap(model).trace(models.images(2))
    context.__exit__(None, None, None)
    rl.wrap(model).trace(models.images(2))
    assert not any(isolation._reservations[module] for module in model.modules())
