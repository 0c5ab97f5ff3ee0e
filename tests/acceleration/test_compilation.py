import copy
import pickle
from functools import partial

import numpy as np
import pytest
import torch
from helpers import models

import resnet_lesion as rl

QUIET = {"show_progress": False}


class Backend:
    """Runs what torch.compile captured as it is, and notes what was captured and how often it ran."""

    def __init__(self):
        self.graphs, self.runs = 0, 0

    def __call__(self, graph, _inputs):
        self.graphs += 1

        def run(*args):
            self.runs += 1
            return graph.forward(*args)

        return run


@pytest.fixture
def backend(monkeypatch):
    backend = Backend()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    return backend


def compiled(name="post-activation", dtype=torch.float64):
    model = models.build(name, dtype)
    inputs = models.images(4, models.CASES[name].shape, dtype=dtype)
    return model, rl.accelerate(model, inputs, compile=True)


@pytest.mark.parametrize("name", models.HAND_BUILT)
def test_counts_are_those_of_the_model(backend, name):
    model, network = compiled(name)
    data = models.data(8, name)
    for analyze in (
        lambda which: rl.Deletion(which).analyze(data, **QUIET),
        lambda which: rl.Reorder(which).analyze(data, n_swaps=[1, 2], n_draws=3, **QUIET),
        lambda which: rl.Deletion(which).analyze(data, n_deleted=2, n_draws=3, **QUIET),
    ):
        expected, found = analyze(model), analyze(network)
        np.testing.assert_array_equal(found.correct, expected.correct)
        np.testing.assert_allclose(found.loss, expected.loss, rtol=1e-11)
    assert backend.runs > 0


def test_blocks_of_one_kind_share_a_graph_for_any_number_of_images(backend):
    _, network = compiled()
    assert (backend.graphs, backend.runs) == (3, 6)  # 4 channels, 4 to 6 channels, 6 channels; six blocks
    for n in (5, 8, 3):
        rl.Deletion(network).analyze(models.data(n), **QUIET)
    assert backend.graphs == 3
    rl.Deletion(network).analyze(models.data(1), **QUIET)
    one = backend.graphs
    rl.Deletion(network).analyze(models.data(1), **QUIET)
    assert backend.graphs == one <= 6  # torch compiles once more for a single image


def test_each_block_runs_compiled_for_each_stream(backend):
    _, network = compiled()
    before = backend.runs
    result = rl.Deletion(network).analyze(models.data(4), **QUIET)
    assert backend.runs - before == 2 * 6  # all streams of a position together, once to prove it and once to count
    assert result.attrs["block_evaluations"] == 20


def test_path_gradients_run_uncompiled(backend):
    model, network = compiled()
    inputs, targets = models.data(3)
    expected = rl.PathGradient(model).attribute(inputs, targets, path_length=[1, 2])
    before = backend.graphs, backend.runs
    found = rl.PathGradient(network).attribute(inputs, targets, path_length=[1, 2])
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    assert (backend.graphs, backend.runs - 6) == before  # six blocks to prove it
    before = backend.graphs, backend.runs
    with network.routed([1, 0, 1, 0, 1, 0]) as routed, torch.enable_grad():
        routed(inputs.requires_grad_()).sum().backward()
    with network.lesioned(delete=[1]) as lesioned, torch.enable_grad():
        lesioned(inputs.requires_grad_()).sum().backward()
    assert (backend.graphs, backend.runs) == before


def test_hooks_within_a_block_are_called(backend):
    model, network = compiled()
    seen = []
    for block in (model.stage1[1], network.model.stage1[1]):
        block.bn2.register_forward_hook(lambda _module, _args, output: seen.append(len(output)) or 2 * output)
    data = models.data(4)
    expected, found = (rl.Deletion(which).analyze(data, **QUIET) for which in (model, network))
    np.testing.assert_allclose(found.loss, expected.loss, rtol=1e-11)
    assert seen[: len(seen) // 2] == seen[len(seen) // 2 :]
    assert len(seen) > 2


def test_contexts_nest(backend):
    model, network = compiled()
    inputs = models.images(3)
    row = [0, 1, 1, 3, 5, 4]
    with torch.no_grad():
        with rl.wrap(model).lesioned(delete=[1]), rl.wrap(model).lesioned(order=row):
            expected = model(inputs)
        with network.lesioned(delete=[1]), network.lesioned(order=row) as lesioned:
            torch.testing.assert_close(lesioned(inputs), expected, rtol=1e-12, atol=1e-12)


def test_the_model_is_left_alone(backend):
    model = models.build().train()
    snapshot = models.Snapshot(model)
    network = rl.accelerate(model, models.images(3), compile=True)
    mine = models.Snapshot(network.model)
    rl.Deletion(network).analyze(models.data(3), **QUIET)
    mine.check()
    snapshot.check()
    assert network.acceleration.compile


@pytest.mark.parametrize("again", [copy.deepcopy, lambda network: pickle.loads(pickle.dumps(network))])
def test_a_copy_runs_compiled_too(backend, again):
    _, network = compiled()
    twin, before, data = again(network), backend.runs, models.data(3)
    expected, found = (rl.Deletion(which).analyze(data, **QUIET) for which in (network, twin))
    np.testing.assert_array_equal(found.loss, expected.loss)
    assert backend.runs - before == 2 * 2 * len(network)  # once to prove it and once to count
    assert found.attrs["acceleration"] == expected.attrs["acceleration"]


@pytest.mark.sweep
@pytest.mark.filterwarnings("default")  # what the compiler warns of is not ours
@pytest.mark.parametrize("name", models.CASES)
def test_what_the_compiler_makes_computes_the_same(name):
    model, network = compiled(name, torch.float32)
    inputs, targets = models.data(32, name)
    data = inputs.float(), targets
    expected, found = (rl.Deletion(which).analyze(data, **QUIET) for which in (model, network))
    np.testing.assert_allclose(found.loss, expected.loss, rtol=1e-4)
    np.testing.assert_array_equal(found.correct, expected.correct)


@pytest.mark.gpu
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
def test_on_an_accelerator(autocast):
    model = models.build("resnet basic", torch.float32).cuda()
    inputs, targets = models.data(32, "resnet basic", torch.float32)
    network = rl.accelerate(model, inputs, autocast=autocast, compile=True)
    expected, found = (rl.Deletion(which).analyze((inputs, targets), **QUIET) for which in (model, network))
    np.testing.assert_allclose(found.loss, expected.loss, rtol=0.05)
