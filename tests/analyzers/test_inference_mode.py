"""Analyses called where no gradients are recorded, or on what was made there, give what they give elsewhere."""

import copy

import pytest
import torch
import xarray as xr
from helpers import models
from helpers.analyses import ANALYSES, QUIET

import resnet_lesion as rl

N = 4
ATTRIBUTIONS = {
    "Deletion": lambda model, x, y: rl.Deletion(model).attribute(x, y),
    "Reorder": lambda model, x, y: rl.Reorder(model).attribute(x, y, orders=[[1, 0, 2, 3, 4, 5]]),
    "PathGradient": lambda model, x, y: rl.PathGradient(model).attribute(x, y, path_length=[1, 2, 3]),
    "EffectivePath": lambda model, x, y: rl.EffectivePath(model).attribute(x, y, coverage=0.5),
    "convergence delta": lambda model, x, y: rl.PathGradient(model).attribute(x, y, return_convergence_delta=True)[1],
}
MORE = {
    "effective_path": lambda model, data: rl.EffectivePath(model).analyze(data, n_draws=3, **QUIET),
    "accelerated": lambda model, data: rl.PathGradient(
        rl.accelerate(model, data[0], channels_last=False, fold_norms=False)
    ).analyze(data, **QUIET),
}
EVERYTHING = ANALYSES | MORE
OF_GRADIENTS = ("path_gradient", "sampled_path_gradient", "block_statistics", "effective_path")


def check_equal(found, expected):
    if isinstance(expected, torch.Tensor):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)
        assert not found.is_inference() or torch.is_inference_mode_enabled()
    else:
        xr.testing.assert_allclose(found.drop_attrs(), expected.drop_attrs(), rtol=1e-12, atol=1e-14)


@pytest.fixture(params=["inference_mode", "no_grad", "set_grad_enabled"])
def unrecorded(request):
    return {
        "inference_mode": torch.inference_mode,
        "no_grad": torch.no_grad,
        "set_grad_enabled": lambda: torch.set_grad_enabled(False),
    }[request.param]


def made_in_inference_mode(value):
    with torch.inference_mode():
        return value.clone() if isinstance(value, torch.Tensor) else copy.deepcopy(value)


@pytest.mark.parametrize("name", EVERYTHING)
def test_analyses(name, unrecorded):
    model, data = models.build(), models.data(N)
    expected = EVERYTHING[name](model, data)
    snapshot = models.Snapshot(model)
    with unrecorded():
        check_equal(EVERYTHING[name](model, data), expected)
        assert not torch.is_grad_enabled()
    snapshot.check()
    check_equal(EVERYTHING[name](model, tuple(map(made_in_inference_mode, data))), expected)


@pytest.mark.parametrize("name", ATTRIBUTIONS)
def test_attributions(name, unrecorded):
    model, (x, y) = models.build(), models.data(N)
    expected = ATTRIBUTIONS[name](model, x, y)
    assert (expected.abs() > 0).any()
    with unrecorded():
        check_equal(ATTRIBUTIONS[name](model, x, y), expected)
    check_equal(ATTRIBUTIONS[name](model, made_in_inference_mode(x), made_in_inference_mode(y)), expected)


def test_study_and_checks(unrecorded):
    model, data = models.build(), models.data(N)
    some = {"n_paths": 2, "n_draws": 1, "n_deleted": [1], "n_swaps": [1]}
    expected = rl.study(model, data, **some, **QUIET)
    with unrecorded():
        found = rl.study(model, data, **some, **QUIET)
        assert rl.wrap(model).verify(data[0]) < 1e-14
        assert rl.testing.check_adapter(model, data[0]) < 1e-12
    for name, group in expected.children.items():
        check_equal(found[name].to_dataset(), group.to_dataset())


def test_own_code_on_a_lesioned_model(unrecorded):
    model, (x, _) = models.build(), models.data(N)
    network = rl.wrap(model)
    for change in (lambda: network.lesioned(delete=[1, 4]), lambda: network.routed([1, 0, 1, 0, 1, 0])):
        with change():
            expected = model(x)
        with unrecorded(), change():
            assert torch.equal(model(x), expected)


def test_an_accelerated_copy_made_in_inference_mode_has_gradients(unrecorded):
    model, data = models.build(), models.data(N)
    with unrecorded():
        network = rl.accelerate(model, data[0])
    assert not any(parameter.is_inference() for parameter in network.model.parameters())
    found, expected = (rl.PathGradient(one).analyze(data, **QUIET).sum_gradient_norm for one in (network, model))
    xr.testing.assert_allclose(found, expected, rtol=1e-9)


@pytest.mark.parametrize("name", EVERYTHING)
def test_weights_made_in_inference_mode(name):
    """They can be lesioned; for gradients, the error says what can."""
    model, data = models.build(), models.data(N)
    expected, theirs = EVERYTHING[name](model, data), made_in_inference_mode(model)
    if name not in OF_GRADIENTS:
        check_equal(EVERYTHING[name](theirs, data), expected)
    else:
        with pytest.raises(ValueError, match=r"'stem\.weight' was made in .*inference_mode.* copy\.deepcopy\(model\)"):
            EVERYTHING[name](theirs, data)
    check_equal(EVERYTHING[name](copy.deepcopy(theirs), data), expected)
