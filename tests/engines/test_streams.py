import numpy as np
import pytest
import torch
from helpers import models, reference
from helpers.strategies import order_rows
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import resnet_lesion as rl
from resnet_lesion.engines.plan import Plan
from resnet_lesion.engines.streams import forward_lesions


@pytest.mark.parametrize("name", models.CASES)
@given(data=st.data())
def test_logits_equal_those_of_a_naive_loop(name, data):
    case, model = models.CASES[name], models.build(name)
    inputs = models.images(data.draw(st.integers(1, 3)), case.shape)
    rows = data.draw(order_rows(reference.kinds(model, inputs)))
    with torch.no_grad():
        found = forward_lesions(rl.wrap(model), Plan(np.array(rows)), inputs)
    expected = reference.logits(model, case, rows, inputs)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "rows",
    [
        [[0, 1, 2, 3, 4, 5]],
        [[-1, -1, -1, -1, -1, -1]],
        [[2, 1, 0, 3, 5, 4]],
        [[1, 1, 1, 3, 4, 4], [-1, 0, 0, -1, 3 + 1, 5]],
        [[0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5]],
        [[0, -1, 1, 3, 4, 5], [0, 1, -1, 3, 4, 5], [-1, 0, 1, 3, 4, 5]],
    ],
    ids=["whole", "nothing left", "reversed", "repeated", "the same row twice", "shifted"],
)
@pytest.mark.parametrize("name", models.HAND_BUILT)
def test_known_rows_equal_a_naive_loop(name, rows):
    case, model, inputs = models.CASES[name], models.build(name), models.images(3)
    with torch.no_grad():
        found = forward_lesions(rl.wrap(model), Plan(np.array(rows)), inputs)
    torch.testing.assert_close(found, reference.logits(model, case, rows, inputs), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["post-activation", "resnetv2 basic"])
@given(data=st.data())
def test_a_branch_is_computed_once_for_each_prefix(name, data):
    model, n = models.build(name), 2
    inputs = models.images(n, models.CASES[name].shape)
    rows = data.draw(order_rows(reference.kinds(model, inputs)))
    computed = []
    for layer in reference.layers(model):
        first = model.get_submodule(layer).conv1
        first.register_forward_hook(lambda _module, args, _output: computed.append(len(args[0]) / n))
    with torch.no_grad():
        forward_lesions(rl.wrap(model), Plan(np.array(rows)), inputs)
    assert sum(computed) == reference.block_evaluations(rows)


def test_a_hook_on_a_block_sees_each_stream_once():
    model, inputs, seen = models.build(), models.images(2), []
    model.stage1[1].register_forward_hook(lambda _module, args, output: seen.append((len(args[0]), len(output))))
    rows = np.array([[0, 1, 2, 3, 4, 5], [-1, 1, 2, 3, 4, 5], [0, -1, 2, 3, 4, 5]])
    with torch.no_grad():
        forward_lesions(rl.wrap(model), Plan(rows), inputs)
    assert seen == [(2 * 2, 3 * 2)]


def test_a_hook_that_changes_a_block_takes_part():
    model, inputs = models.build(), models.images(2)
    model.stage1[1].register_forward_hook(lambda _module, _args, output: 2 * output)
    rows = [[0, 1, 2, 3, 4, 5], [-1, 1, 2, 3, 4, 5], [0, 1, -1, 3, 4, 5]]
    with torch.no_grad():
        found = forward_lesions(rl.wrap(model), Plan(np.array(rows)), inputs)
    expected = reference.logits(model, models.CASES["post-activation"], rows, inputs)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_outputs_of_any_shape():
    model, inputs = models.build(), models.images(2)
    model.head = nn.Linear(6, 8).double()
    as_map = nn.Sequential(model, nn.Unflatten(1, (2, 2, 2)))
    rows = np.array([[0, 1, 2, 3, 4, 5], [-1, 1, 2, 3, 4, 5]])
    with torch.no_grad():
        found = forward_lesions(rl.wrap(as_map), Plan(rows), inputs)
        torch.testing.assert_close(found[0], as_map(inputs), rtol=1e-12, atol=1e-12)
    assert found.shape == (2, 2, 2, 2, 2)


class ChangesItsBatch(models.Net):
    def forward(self, x):
        x = self.stage1(self.stem(x))
        return self.head(self.stage2(torch.cat([x, x])).mean((2, 3)))


class LosesItsBatch(models.Net):
    def forward(self, x):
        return super().forward(x).sum(0)


class SkipsABlock(models.Net):
    def forward(self, x):
        return super().forward(x) if len(x) == 1 else self.head(self.stage2(self.stage1[1:](self.stem(x))).mean((2, 3)))


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (ChangesItsBatch, "expected 2 x 3 rows at block 'stage2.0', got 12: .*batch dimension"),
        (LosesItsBatch, r"expected one tensor with 2 x 3 rows from the model, got \(5,\)"),
        (SkipsABlock, "block 'stage1.0' ran 0 times"),
    ],
)
def test_models_that_lesions_cannot_be_stacked_in_are_refused(net, message):
    network = rl.wrap(net(models.PostActivation).double().eval())
    rows = np.array([[0, 1, 2, 3, 4, 5], [0, 1, -1, 3, 4, 5]])
    with torch.no_grad(), pytest.raises(rl.AdapterError, match=message):
        forward_lesions(network, Plan(rows), models.images(3))
