import copy
import json
import pickle

import numpy as np
import pytest
import torch
from helpers import models, quantised
from timm.layers import convert_splitbn_model
from torch import nn
from torch.nn import functional as F
from torch.nn import utils as hooked
from torch.nn.utils import parametrizations, prune

import resnet_lesion as rl
from resnet_lesion.acceleration import folding
from resnet_lesion.results.provenance import weights_hash

QUIET = {"show_progress": False}
ORDERS = [[2, 1, 0, 3, 5, 4], [-1, 1, 1, 3, 4, 5]]
COUNTED = {
    "Deletion, each": lambda network, data: rl.Deletion(network).analyze(data, **QUIET),
    "Deletion, many": lambda network, data: rl.Deletion(network).analyze(data, n_deleted=[1, 3], n_draws=4, **QUIET),
    "Reorder": lambda network, data: rl.Reorder(network).analyze(data, n_swaps=[1, 2], n_draws=4, **QUIET),
}


def accelerated(name="post-activation", dtype=torch.float64, **options):
    model = models.build(name, dtype)
    return model, rl.accelerate(model, models.images(4, models.CASES[name].shape, dtype=dtype), **options)


@pytest.mark.parametrize("name", models.CASES)
@pytest.mark.parametrize("analysis", COUNTED)
def test_counts_are_those_of_the_model(name, analysis):
    model, network = accelerated(name)
    data = models.data(16, name)
    expected, found = COUNTED[analysis](model, data), COUNTED[analysis](network, data)
    for key in ("correct", "agreement", "baseline_correct"):
        np.testing.assert_array_equal(found[key], expected[key])
    np.testing.assert_allclose(found.loss, expected.loss, rtol=1e-11)
    assert found.attrs["block_evaluations"] == expected.attrs["block_evaluations"]
    assert found.layer.equals(expected.layer)
    assert found.stage.equals(expected.stage)
    assert found.is_downsampling.equals(expected.is_downsampling)


def test_evaluate_takes_it():
    model, network = accelerated()
    expected, found = (rl.evaluate(which, models.data(16), ORDERS, **QUIET) for which in (model, network))
    np.testing.assert_array_equal(found.correct, expected.correct)


@pytest.mark.parametrize("name", models.CASES)
def test_path_gradients_are_those_of_the_model(name):
    model, network = accelerated(name)
    inputs, targets = models.data(2, name)
    for lengths in ([0], [1, 2], None):
        expected, found = (
            rl.PathGradient(which).attribute(inputs, targets, path_length=lengths) for which in (model, network)
        )
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12 * float(expected.abs().max()))
    options = {"method": "sample", "n_draws": 2} | QUIET
    expected, found = (
        rl.PathGradient(which).analyze((inputs, targets), **options).gradient_norm for which in (model, network)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-9)


@pytest.mark.parametrize("name", models.CASES)
def test_the_blocks_are_those_of_their_adapters(name):
    model, network = accelerated(name)
    assert network.layers == rl.wrap(model).layers
    assert network.verify(models.images(3, models.CASES[name].shape)) < 1e-14
    for of_model, of_copy in zip(rl.wrap(model).branches, network.branches, strict=True):
        assert (of_copy.entry, of_copy.exit, of_copy.skip) == (of_model.entry, of_model.exit, of_model.skip)


def test_lesioned_and_routed_run_the_copy():
    model, network = accelerated()
    inputs = models.images(3)
    with torch.no_grad(), rl.wrap(model).lesioned(delete=[1, 4]), network.lesioned(delete=[1, 4]) as copy:
        torch.testing.assert_close(copy(inputs), model(inputs), rtol=1e-12, atol=1e-12)
    assert copy is network.model is not model


@pytest.mark.parametrize("options", [{}, {"fold_norms": False}, {"channels_last": False}])
@pytest.mark.parametrize("training", [False, True])
def test_the_model_is_left_alone(options, training):
    model = models.build().train(training)
    model.stem.register_forward_hook(lambda *_: None)
    model.head.requires_grad_(False)
    inputs = models.images(3)
    snapshot, values = models.Snapshot(model), inputs.clone()
    network = rl.accelerate(model, inputs, **options)
    rl.Deletion(network).analyze(models.data(3), **QUIET)
    snapshot.check()
    assert torch.equal(inputs, values)
    mine = {tensor.data_ptr() for tensor in model.state_dict().values()}
    assert mine.isdisjoint({tensor.data_ptr() for tensor in network.model.state_dict().values()})
    assert not any(module.training for module in network.model.modules())


def test_the_model_is_left_alone_after_an_exception(monkeypatch):
    class Interrupt(BaseException):
        pass

    def interrupt(*_):
        torch.rand(1)
        raise Interrupt

    model = models.build().train()
    snapshot = models.Snapshot(model)
    monkeypatch.setattr(folding, "fuse_conv_bn_eval", interrupt)
    with pytest.raises(Interrupt):
        rl.accelerate(model, models.images(3))
    snapshot.check()


@pytest.mark.parametrize("channels_last", [False, True])
def test_the_memory_format(channels_last):
    _, network = accelerated("resnet bottleneck", channels_last=channels_last)
    seen = []
    for block in network.blocks:
        block.module.register_forward_hook(
            lambda _module, args, output: seen.extend(
                t.is_contiguous(memory_format=torch.channels_last) for t in (args[0], output) if 1 not in t.shape[2:]
            )
        )
    rl.Deletion(network).analyze(models.data(3, "resnet bottleneck"), **QUIET)
    assert seen
    assert all(flag == channels_last for flag in seen)


def test_agreement_is_measured():
    model, network = accelerated(dtype=torch.float32, autocast=torch.bfloat16)
    inputs = models.images(4, dtype=torch.float32)
    with torch.no_grad():
        expected = model(inputs)
        with torch.autocast("cpu", torch.bfloat16):
            found = network.model(inputs.contiguous(memory_format=torch.channels_last)).float()
            coarse = model(inputs).double()
        exact = model.double()(inputs.double())
    acceleration = network.acceleration
    assert acceleration.n_folded == 13
    assert (acceleration.n_images, acceleration.autocast, acceleration.channels_last) == (4, "bfloat16", True)
    assert acceleration.equal_predictions == float((found.argmax(1) == expected.argmax(1)).double().mean())
    assert acceleration.deviation == pytest.approx(float((found - expected).abs().max() / expected.abs().max()))
    assert acceleration.rounding == pytest.approx(float((coarse - exact).abs().max() / exact.abs().max()))
    assert 1e-4 < acceleration.deviation < 0.1


def test_results_say_what_was_done():
    model, network = accelerated(dtype=torch.float32, autocast=torch.bfloat16)
    data = models.data(4, dtype=torch.float32)
    for found in (rl.Deletion(network).analyze(data, **QUIET), rl.PathGradient(network).analyze(data, **QUIET)):
        assert found.attrs["weights_sha256"] == weights_hash(model)
        assert found.attrs["autocast"] == "bfloat16"
        assert json.loads(found.attrs["acceleration"])["deviation"] == network.acceleration.deviation
    assert "acceleration" not in rl.Deletion(model).analyze(data, **QUIET).attrs


@pytest.mark.parametrize("name", ["post-activation", "resnetv2 basic"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_small_error_in_a_block_is_found(monkeypatch, name, dtype):
    fuse = folding.fuse_conv_bn_eval

    def wrong(conv, norm):
        fused = fuse(conv, norm)
        with torch.no_grad():
            fused.weight[0] *= 1 + 1e-4
        return fused

    monkeypatch.setattr(folding, "fuse_conv_bn_eval", wrong)
    monkeypatch.setattr(folding, "_computes_the_same", lambda *_: True)
    with pytest.raises(ValueError, match=r"rounding, at most .* got .*fold_norms=False"):
        accelerated(name, dtype)


def test_the_precision_holds_in_every_context():
    _, network = accelerated(dtype=torch.float32, autocast=torch.bfloat16)
    inputs = models.images(2, dtype=torch.float32)
    with torch.no_grad():
        for context in (network.lesioned(delete=[0]), network.routed([1] * 6), network.isolated()):
            assert network.model(inputs).dtype == torch.float32
            with context:
                assert network.model(inputs).dtype == torch.bfloat16
    assert not torch.is_autocast_enabled("cpu")


def test_lower_precision_counts_and_gradients():
    model, network = accelerated(dtype=torch.float32, autocast=torch.bfloat16)
    data = models.data(64, dtype=torch.float32)
    expected, found = (rl.Deletion(which).analyze(data, **QUIET) for which in (model, network))
    np.testing.assert_allclose(found.loss, expected.loss, rtol=0.05)
    assert (found.loss != expected.loss).any()
    gradient = rl.PathGradient(network).analyze(data, **QUIET)
    assert 0 < float(gradient.convergence_delta) < 0.1
    whole = rl.PathGradient(model).analyze(data, **QUIET)
    np.testing.assert_allclose(gradient.sum_gradient_norm, whole.sum_gradient_norm, rtol=0.1)


def test_what_cannot_be_accelerated_is_refused():
    model, network = accelerated()
    inputs = models.images(2)
    with pytest.raises(TypeError, match="already accelerated"):
        rl.accelerate(network, inputs)
    with pytest.raises(TypeError, match="no residual block"):
        rl.accelerate(nn.Linear(2, 2), inputs)
    with pytest.raises(RuntimeError, match="to have 3 channels, but got 2 channels"):
        rl.accelerate(model, inputs[:, :2])
    with pytest.raises(ValueError, match="expected a float32 model"):
        rl.accelerate(model, inputs, autocast=torch.bfloat16)
    with pytest.raises(ValueError, match=r"expected autocast as .* got torch.float64"):
        rl.accelerate(model.float(), inputs, autocast=torch.float64)
    with pytest.raises(ValueError, match="CUDA device"):
        rl.accelerate(model.float(), inputs, autocast="tf32")
    with pytest.raises(ValueError, match="finite inputs, got NaN"):
        rl.accelerate(model, inputs * float("nan"))


@pytest.mark.parametrize("again", [copy.deepcopy, lambda network: pickle.loads(pickle.dumps(network))])
def test_a_copy_is_accelerated_too(again):
    _, network = accelerated(dtype=torch.float32, autocast=torch.bfloat16)
    twin = again(network)
    data = models.data(8, dtype=torch.float32)
    expected, found = (rl.Deletion(which).analyze(data, **QUIET) for which in (network, twin))
    np.testing.assert_array_equal(found.loss, expected.loss)
    assert twin.acceleration == network.acceleration
    assert twin.model is not network.model
    for key in ("weights_sha256", "autocast", "acceleration"):
        assert found.attrs[key] == expected.attrs[key]


class Functional(nn.Module):
    """A model that has a norm as a function, which cannot be folded."""

    def __init__(self):
        super().__init__()
        self.net = models.Net(models.PostActivation)

    def forward(self, x):
        return self.net(F.layer_norm(x, x.shape[1:]))


def test_a_wrapped_network_is_taken():
    model = models.randomised(Functional()).double().eval()
    network = rl.accelerate(rl.wrap(model), models.images(3))
    assert network.acceleration.n_folded == 13
    assert network.layers[0] == "net.stage1.0"
    assert rl.wrap(network) is network


def each_convolution(change):
    model = models.build()
    for module in [*model.modules()]:
        if isinstance(module, nn.Conv2d):
            change(module)
    return model


OTHERS = {  # models whose norms or weights are not plain, all in eval mode
    "norms split in training": lambda: convert_splitbn_model(models.build()).double().eval(),
    "norms with an activation split in training": lambda: (
        convert_splitbn_model(models.build("resnetv2 basic")).double().eval()
    ),
    "weight norm": lambda: each_convolution(hooked.weight_norm),
    "spectral norm": lambda: each_convolution(hooked.spectral_norm),
    "pruned": lambda: each_convolution(lambda conv: prune.l1_unstructured(conv, "weight", 0.3)),
    "weight norm as a parametrisation": lambda: each_convolution(parametrizations.weight_norm),
    "spectral norm as a parametrisation": lambda: each_convolution(parametrizations.spectral_norm),
    "orthogonal": lambda: each_convolution(parametrizations.orthogonal),
}


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated:FutureWarning")
@pytest.mark.parametrize("name", OTHERS)
def test_what_is_not_plain_is_left_alone(name):
    model = OTHERS[name]()
    case = "resnetv2 basic" if "activation" in name else "post-activation"
    data = models.data(8, case)
    model(data[0])  # with gradients, so that weights computed anew hang on a graph
    network = rl.accelerate(model, data[0])
    assert network.acceleration.n_folded == 0
    expected, found = (rl.Deletion(which).analyze(data, **QUIET) for which in (model, network))
    np.testing.assert_allclose(found.loss, expected.loss, rtol=1e-11)
    np.testing.assert_array_equal(found.correct, expected.correct)


@pytest.mark.parametrize("dtype", [torch.int8, torch.complex64])
def test_weights_of_other_types_are_refused(dtype):
    model = models.build()
    model.register_parameter("table", nn.Parameter(torch.ones(2).to(dtype), requires_grad=False))
    with pytest.raises(TypeError, match=rf"expected plain floating-point weights, .* got {dtype} \('table'\)"):
        rl.accelerate(model, models.images(2))
    assert model.table.dtype == dtype


def test_weights_that_compute_by_themselves_are_refused():
    with pytest.raises(TypeError, match=r"got Quantised \('head.weight'\).* before its weights are replaced"):
        rl.accelerate(quantised.quantise(models.build()), models.images(2))


@pytest.mark.gpu
@pytest.mark.parametrize("autocast", [None, "tf32", torch.bfloat16, torch.float16])
def test_on_an_accelerator(autocast):
    model = models.build("resnet bottleneck", torch.float32).cuda()
    inputs, targets = models.data(64, "resnet bottleneck", torch.float32)
    network = rl.accelerate(model, inputs[:16], autocast=autocast)
    expected, found = (rl.Deletion(which).analyze((inputs, targets), **QUIET) for which in (model, network))
    np.testing.assert_allclose(found.loss, expected.loss, rtol=0.05)
    assert network.acceleration.equal_predictions > 0.8
