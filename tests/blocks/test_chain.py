import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from helpers import models, reference
from helpers.chains import CASES, DIM, TOKENS, Transformer, naive, plain, transformer
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

import resnet_lesion as rl
from resnet_lesion.engines.plan import Plan
from resnet_lesion.engines.streams import forward_lesions
from resnet_lesion.testing import check_adapter

QUIET = {"show_progress": False}


def test_links_are_named_after_their_module():
    network = rl.wrap(transformer()[0])
    assert network.layers == tuple(f"blocks.{i}.{link}" for i in range(3) for link in ("mix", "mlp"))
    assert network.stage.tolist() == [0] * 6
    assert not network.is_downsampling.any()
    network = rl.wrap(plain()[0])
    assert network.layers == ("features.2", "features.4", "features.6")
    assert [branch.skip for branch in network.branches] == [False] * 3


@pytest.mark.parametrize("case", CASES)
@given(data=st.data())
def test_lesions_of_links_equal_a_naive_loop(case, data):
    model, inputs = CASES[case]()
    network, n = rl.wrap(model), len(rl.wrap(model))
    rows = data.draw(st.lists(st.tuples(*[st.integers(-1, n - 1)] * n).map(list), min_size=1, max_size=5))
    expected = torch.stack([naive(model, row, inputs) for row in rows])
    with torch.no_grad(), network.isolated():
        found = forward_lesions(network, Plan(np.array(rows)), inputs)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    result = rl.evaluate(network, (inputs, models.labels(3)), rows, **QUIET)
    counts = reference.counts(model, expected, inputs, models.labels(3))
    np.testing.assert_array_equal(result.correct, counts["correct"])
    np.testing.assert_array_equal(result.agreement, counts["agreement"])
    with torch.no_grad(), network.lesioned(order=rows[0]):
        torch.testing.assert_close(model(inputs), expected[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_analyzers_see_each_link(case):
    model, inputs = CASES[case]()
    n = len(rl.wrap(model))
    rows = np.where(np.eye(n, dtype=bool), -1, np.arange(n))
    found = rl.Deletion(model).attribute(inputs, 1)
    lost = [(naive(model, range(n), inputs) - naive(model, row, inputs))[:, 1] for row in rows]
    torch.testing.assert_close(found, torch.stack(lost, dim=1), rtol=1e-10, atol=1e-12)
    result = rl.Reorder(model).analyze((inputs, models.labels(3)), n_swaps=[1, 2], n_draws=2, **QUIET)
    assert set(np.unique(result.order)) == set(range(n))


@pytest.mark.parametrize("case", CASES)
def test_chains_are_what_their_adapters_say(case):
    model, inputs = CASES[case]()
    assert rl.wrap(model).verify(inputs) <= 1e-14
    assert check_adapter(model, inputs) < 1e-12


class Boom(BaseException):
    pass


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("fail", [False, True])
def test_the_model_is_as_it_was(case, fail):
    model, inputs = CASES[case]()
    model.train()
    data, network = (inputs, models.labels(3)), rl.wrap(model)
    n, calls = len(network), []

    def count(*_):
        calls.append(1)
        if fail:
            raise Boom

    network.blocks[1].module.branch[-1].register_forward_hook(count)
    snapshot = models.Snapshot(model)

    def in_lesion():
        with torch.no_grad(), network.lesioned(delete=0):
            model(inputs)

    for use in (
        lambda: rl.evaluate(model, data, [range(n)], **QUIET),
        lambda: rl.Deletion(model).analyze(data, **QUIET),
        lambda: rl.Deletion(model).attribute(inputs, 0),
        lambda: network.verify(inputs),
        lambda: network.trace(inputs),
        in_lesion,
    ):
        calls.clear()
        if fail:
            with pytest.raises(Boom):
                use()
        else:
            use()
        snapshot.check()
        assert calls


def test_a_hook_on_the_whole_module_is_still_called():
    model, inputs = transformer()
    shapes = []
    model.blocks[1].register_forward_hook(lambda _module, args, output: shapes.append((len(args[0]), len(output))))
    rows = np.array([[0, 1, 2, 3, 4, 5], [-1, 1, 2, 3, 4, 5], [0, 1, -1, 3, 4, 5]])
    network = rl.wrap(model)
    with torch.no_grad(), network.isolated():
        forward_lesions(network, Plan(rows), inputs)
    assert shapes == [(2 * 3, 3 * 3)]


def test_analyses_inside_a_lesion_see_it():
    model, inputs = transformer()
    with rl.wrap(model).lesioned(delete="blocks.0.mlp"):
        found = rl.evaluate(model, (inputs, models.labels(3)), [[0, 1, 2, -1, 4, 5]], **QUIET)
    expected = F.cross_entropy(naive(model, [0, -1, 2, -1, 4, 5], inputs), models.labels(3)).item()
    assert float(found.loss[0]) == pytest.approx(expected, rel=1e-12)


def test_a_mask_that_links_would_miss_is_refused():
    class Masked(Transformer):
        def forward(self, x):
            x = self.stem(x)
            for block in self.blocks:
                x = block(x, torch.ones(1))
            return self.head(x.mean(1))

    class WithoutMask(Masked):
        def forward(self, x):
            x = self.stem(x)
            for block in self.blocks:
                x = block(x, mask=None)
            return self.head(x.mean(1))

    data = models.images(2, (TOKENS, 4)), models.labels(2)
    with pytest.raises(rl.AdapterError, match="Mixer was called with more than one tensor"):
        rl.Deletion(Masked().double()).analyze(data, **QUIET)
    assert rl.Deletion(WithoutMask().double()).analyze(data, **QUIET).total == 2


class Scaled(nn.Module):
    """Its branch is scaled by what it is called with."""

    def __init__(self):
        super().__init__()
        self.norm, self.linear = nn.LayerNorm(DIM), nn.Linear(DIM, DIM)

    def forward(self, x, scale, mask=None):
        return x + scale * self.linear(self.norm(x))


@rl.register_adapter(Scaled)
def scaled(block):
    arguments = rl.Arguments("scale")
    branch = rl.Residual(block.norm, block.linear, lambda residual: arguments["scale"] * residual)
    return rl.Chain(block, {"": branch}, arguments)


class CallsWithScales(Transformer):
    def forward(self, x):
        x = self.stem(x)
        for i, block in enumerate(self.blocks):
            x = block(x, i + 1.0) if i else block(x, scale=1.0)
        return self.head(x.mean(1))


@given(rows=st.lists(st.tuples(*[st.integers(-1, 2)] * 3).map(list), min_size=1, max_size=5))
def test_arguments_belong_to_the_position(rows):
    model, inputs = models.randomised(CallsWithScales(Scaled)).double(), models.images(2, (TOKENS, 4))
    expected = []
    with torch.no_grad():
        for row in rows:
            x = model.stem(inputs)
            for position, index in enumerate(row):
                block = model.blocks[index]
                x = x if index < 0 else x + (position + 1) * block.linear(block.norm(x))
            expected.append(model.head(x.mean(1)))
        network = rl.wrap(model)
        assert network.layers == ("blocks.0", "blocks.1", "blocks.2")
        assert network.verify(inputs) < 1e-14
        with network.isolated():
            found = forward_lesions(network, Plan(np.array(rows)), inputs)
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-12, atol=1e-12)


def test_an_argument_that_is_not_given_is_named():
    with pytest.raises(rl.AdapterError, match="reads the argument 'scale', which the model does not give here"):
        rl.Arguments("scale")["scale"]


class Halving(nn.Module):
    """A branch and a projection put together by functions."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(DIM, DIM)

    def forward(self, x):
        return x.flip(2) + self.linear(x) / 2


@rl.register_adapter(Halving)
def halving(block):
    residual = rl.Residual(block.linear, lambda r: r / 2, shortcut=lambda x: x.flip(2))
    return rl.Chain(block, {"half": residual, "after": rl.Function(lambda x: x + 0)})


def test_steps_and_shortcuts_may_be_functions():
    model, inputs = models.randomised(Transformer(Halving)).double(), models.images(2, (TOKENS, 4))
    network = rl.wrap(model)
    assert network.layers == ("blocks.0.half", "blocks.1.half", "blocks.2.half")
    assert network.is_downsampling.all()
    assert check_adapter(model, inputs) < 1e-12
    with torch.no_grad(), network.lesioned(delete=[0, 1, 2]):
        found = model(inputs)
    torch.testing.assert_close(found, model.head(model.stem(inputs).flip(2).mean(1)), rtol=1e-12, atol=1e-12)


def test_a_plain_network_has_no_paths():
    network, message = rl.wrap(plain()[0]), "expected a residual network, but 'features.2' has no skip"
    with pytest.raises(ValueError, match=message), network.routed([1, 1, 1]):
        pass
    with pytest.raises(ValueError, match=message):
        rl.PathGradient(network).analyze((plain()[1], models.labels(3)), **QUIET)


def test_threads_have_their_own_arguments():
    """Two models in two threads, each in the middle of its call when the other reads."""
    both_inside = threading.Barrier(2, timeout=30)

    class Meets(nn.Module):
        def forward(self, x):
            both_inside.wait()
            return x

    def analyse(scale):
        block = Scaled()
        block.linear = nn.Sequential(nn.Identity(), Meets())
        block.norm = nn.Identity()
        chain = rl.find_branch(block)
        x = torch.ones(1, DIM)
        return float((chain(x, scale) - x).mean())

    with ThreadPoolExecutor(2) as pool:
        assert [*pool.map(analyse, [2.0, 5.0])] == [2.0, 5.0]
