import numpy as np
import pytest
import torch
from helpers import models
from helpers.offloading import offload
from torch import nn

import resnet_lesion as rl
from resnet_lesion.network.weights import execution_device, floating_dtype, offloaded_value
from resnet_lesion.results.provenance import weights_hash

QUIET = {"show_progress": False}


@pytest.mark.parametrize("buffers", [False, True])
@pytest.mark.parametrize("name", ["post-activation", "resnetv2 basic"])
def test_a_model_whose_weights_are_offloaded_is_analysed_like_any_other(name, buffers):
    plain, model, data = models.build(name), offload(models.build(name), buffers=buffers), models.data(5, name)
    assert all(parameter.is_meta for parameter in model.parameters())
    assert weights_hash(model) == weights_hash(plain)
    network = rl.wrap(model)
    assert (network.device.type, network.dtype) == ("cpu", torch.float64)
    assert network.verify(data[0]) < 1e-14
    for analyze in (
        lambda model: rl.Deletion(model).analyze(data, **QUIET).loss,
        lambda model: rl.Reorder(model).analyze(data, n_swaps=[1, 2], n_draws=2, **QUIET).loss,
        lambda model: rl.PathGradient(model).analyze(data, **QUIET).sum_gradient_norm,
        lambda model: rl.Deletion(rl.accelerate(model, data[0])).analyze(data, **QUIET).loss,
    ):
        np.testing.assert_allclose(analyze(model), analyze(plain), rtol=1e-11)
    assert all(parameter.is_meta for parameter in model.parameters())


def test_a_change_of_an_offloaded_weight_changes_the_hash():
    model = offload(models.build())
    before = weights_hash(model)
    model.head._hf_hook.hooks[1].weights_map["bias"].add_(1)
    assert weights_hash(model) != before


def test_models_of_the_accelerate_package():
    accelerate = pytest.importorskip("accelerate")
    plain, data = models.build(), models.data(5)
    model = accelerate.cpu_offload(models.build(), execution_device=torch.device("cpu"))
    assert next(model.parameters()).is_meta
    assert weights_hash(model) == weights_hash(plain)
    for analyze in (rl.Deletion, rl.PathGradient):
        expected, found = (analyze(which).analyze(data, **QUIET) for which in (plain, model))
        for key in expected.data_vars:
            np.testing.assert_array_equal(found[key], expected[key], str(key))


def test_the_device_is_that_of_values_or_the_one_they_are_brought_to():
    assert execution_device(nn.Identity()) == torch.empty(0).device
    assert execution_device(nn.Linear(1, 1, device="meta")).type == "meta"
    assert execution_device(nn.Sequential(nn.Linear(1, 1, device="meta"), nn.Linear(1, 1))).type == "cpu"
    offloaded = offload(nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1)), device="cuda:1")
    assert execution_device(offloaded) == torch.device("cuda", 1)
    assert execution_device(offload(models.build(), device="cpu", buffers=True)).type == "cpu"


def test_the_type_is_that_of_the_first_floating_point_weight():
    class Integers(nn.Module):
        def __init__(self, dtype):
            super().__init__()
            self.table = nn.Parameter(torch.ones(2).to(dtype), requires_grad=False)

    assert floating_dtype(nn.Identity()) == torch.get_default_dtype()
    assert floating_dtype(nn.Sequential(Integers(torch.int8), nn.Linear(1, 1).half())) == torch.float16
    assert floating_dtype(nn.Linear(1, 1, dtype=torch.bfloat16, device="meta")) == torch.bfloat16
    for dtype in (torch.int8, torch.complex64):
        with pytest.raises(TypeError, match=rf"expected floating-point weights, .* got {dtype} \('0.table'\)"):
            floating_dtype(nn.Sequential(Integers(dtype)))
        mended = Integers(dtype)
        mended.register_buffer("images", torch.empty(0, dtype=torch.float64), persistent=False)
        assert floating_dtype(mended) == torch.float64


def test_weights_without_values_are_refused():
    with torch.device("meta"):
        model = models.Net(models.PostActivation)
    with pytest.raises(TypeError, match=r"'head.weight' is on the meta device, which has none.* model.load_state_dict"):
        offloaded_value(model, "head.weight")
    for use in (
        lambda: weights_hash(model),
        lambda: rl.Deletion(model).analyze(models.data(2), **QUIET),
        lambda: rl.wrap(model).verify(models.images(2)),
        lambda: rl.wrap(model).trace(models.images(2)),
    ):
        with pytest.raises(TypeError, match=r"expected .* on the meta device.* model.load_state_dict"):
            use()
