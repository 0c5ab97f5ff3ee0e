import pytest
import torch
from helpers import reference_gradient as reference
from helpers.models import CASES, HAND_BUILT, Snapshot, build, images, labels
from torch import nn

import resnet_lesion as rl
from resnet_lesion.network.paths import as_path

SHAPE = (3, 32, 32)


@pytest.mark.parametrize("name", reference.BUILD)
def test_routed_backward_is_the_brute_forced_path(name):
    model = reference.build(name)
    network, x, targets = rl.wrap(model), images(2, SHAPE), labels(2)
    plain = model(x)
    for path in reference.all_paths()[::7]:
        leaf = x.clone().requires_grad_()
        with network.routed(path) as routed:
            logits = routed(leaf)
        reference.cross_entropy(targets)(logits).backward()
        expected = reference.path_gradient(model, x, reference.cross_entropy(targets), path)
        assert torch.equal(logits, plain), "forward values are unchanged to the last bit"
        assert (leaf.grad - expected).abs().max() <= 1e-12 * expected.abs().max().clamp(min=1e-300), path


@pytest.mark.parametrize("name", [*HAND_BUILT, "resnetv2 bottleneck avg_down, drop_path", "resnetv2 post-activation"])
def test_all_paths_add_up_to_the_gradient_on_every_kind_of_block(name):
    model = build(name)
    network, x, targets = rl.wrap(model), images(1, CASES[name].shape), labels(1)
    n = len(network)
    leaf = x.clone().requires_grad_()
    reference.cross_entropy(targets)(model(leaf)).backward()
    whole, total = leaf.grad, torch.zeros_like(x)
    for path in reference.all_paths(n):
        leaf = x.clone().requires_grad_()
        with network.routed(path) as routed:
            reference.cross_entropy(targets)(routed(leaf)).backward()
        total += leaf.grad
    assert (total - whole).abs().max() <= 1e-12 * whole.abs().max()


@pytest.mark.parametrize("first", [0, 1])
def test_routes_nest_and_end_in_any_order(first):
    """What paths have in common is left; where they part, nothing is."""
    model, x = reference.build(next(iter(reference.BUILD))), images(2, SHAPE)
    network, all_paths, objective = rl.wrap(model), [*reference.all_paths()], reference.cross_entropy(labels(2))

    def gradient():
        leaf = x.clone().requires_grad_()
        objective(model(leaf)).backward()
        return torch.zeros_like(leaf) if leaf.grad is None else leaf.grad

    def check(found, expected):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-14)

    paths = [all_paths[1], all_paths[-2]]
    alone, whole = [reference.path_gradient(model, x, objective, path) for path in paths], gradient()
    for path, expected in zip(paths, alone, strict=True):
        with network.routed(path), network.routed(path):
            check(gradient(), expected)
    contexts = [network.routed(path) for path in paths]
    for context in contexts:
        context.__enter__()
    assert not gradient().any()
    contexts[first].__exit__(None, None, None)
    check(gradient(), alone[1 - first])
    contexts[1 - first].__exit__(None, None, None)
    assert torch.equal(gradient(), whole)


_BEGINS_ON_A_SHORTCUT = pytest.param([0, 1, 1, 1, 1, 1], marks=pytest.mark.sweep)


@pytest.mark.parametrize("path", [[1, 0, 1, 0, 1, 0], _BEGINS_ON_A_SHORTCUT])
@pytest.mark.parametrize("name", HAND_BUILT)
def test_routes_can_be_transformed(name, path):
    """torch.func's tensors have no storage, and torch.compile's have no values."""
    model, x = build(name), images(3, CASES[name].shape)

    def total(x):
        return model(x).square().sum()

    def gradient(function, x):
        leaf = x.clone().requires_grad_()
        return torch.autograd.grad(function(leaf), leaf)[0]

    with rl.wrap(model).routed(path):
        expected = torch.cat([gradient(total, image[None]) for image in x])
        vmapped = torch.func.vmap(torch.func.grad(lambda image: total(image[None])))(x)
        compiled = gradient(torch.compile(total, backend="aot_eager", fullgraph=True), x)
    torch._dynamo.reset()
    for found in (vmapped, compiled):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-14)


def test_hooks_are_gone_after_an_exception():
    model = build()
    snapshot = Snapshot(model)
    with pytest.raises(KeyError), rl.wrap(model).routed([1, 0, 1, 0, 1, 0]):
        raise KeyError
    snapshot.check()


@pytest.mark.parametrize("path", [[1, 0], [[1, 0, 1, 0, 1, 0]], [0, 1, 2, 0, 1, 0], "101010", [0.5] * 6])
def test_a_path_that_does_not_fit_is_refused(path):
    with pytest.raises(ValueError, match="6 zeros"), rl.wrap(build()).routed(path):
        pass


def test_masks_and_integers_are_paths():
    assert as_path([True, False], 2).tolist() == as_path((1, 0), 2).tolist() == [True, False]


def test_an_entry_that_does_not_read_the_input_is_refused():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Linear(3, 3)

        def forward(self, x):
            return x + self.body(2 * x)

    rl.register_adapter(Scaled)(lambda block: rl.Branch(entry="body", exit="body"))
    model = nn.Sequential(Scaled())
    with rl.wrap(model).routed([1]), pytest.raises(rl.AdapterError, match="entry 'body' is not fed the block's own"):
        model(torch.ones(1, 3))
