import dataclasses

import pytest
import timm
import torch
from helpers import models, reference
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor

import resnet_lesion as rl

LAYERS = ("stage1.0", "stage1.1", "stage1.2", "stage2.0", "stage2.1", "stage2.2")


def test_blocks_are_named_in_forward_order():
    network = rl.wrap(models.build())
    assert network.layers == LAYERS
    assert len(network) == 6
    assert [branch.shortcut for branch in network.branches] == [None, None, None, "projection", None, None]
    assert network.stage.tolist() == [0, 0, 0, 1, 1, 1]
    assert network.is_downsampling.tolist() == [False, False, False, True, False, False]
    assert repr(network) == "ResidualNetwork(Net, 6 blocks: stage1.0 ... stage2.2)"


@pytest.mark.parametrize("name", models.TIMM)
def test_timms_blocks_are_found(name):
    model = models.build(name)
    assert list(rl.wrap(model).layers) == reference.layers(model)


def test_a_network_is_not_wrapped_twice():
    network = rl.wrap(models.build())
    assert rl.wrap(network) is network
    assert rl.Deletion(network).network is network
    assert rl.Reorder(network).network is network


def test_device_and_dtype_are_the_models():
    network = rl.wrap(models.build(dtype=torch.float16))
    assert (network.device, network.dtype) == (torch.device("cpu"), torch.float16)
    assert network.to_device(torch.zeros(1, dtype=torch.float64)).dtype == torch.float16
    assert network.to_device(torch.zeros(1, dtype=torch.int64)).dtype == torch.int64


@pytest.mark.parametrize("name", models.CASES)
def test_blocks_are_what_their_adapters_say(name):
    model = models.build(name)
    assert rl.wrap(model).verify(models.images(3, models.CASES[name].shape)) <= 1e-14


def test_deviations_within_rounding_are_returned():
    class Rounds(models.PostActivation):
        def forward(self, x):
            return super().forward(x)

    @rl.register_adapter(Rounds)
    def rounds(block):
        branch = models.post_activation(block)
        return dataclasses.replace(branch, scale=lambda r: r * 3 / 3)

    torch.manual_seed(0)
    deviation = rl.wrap(models.randomised(models.Net(Rounds)).double()).verify(models.images(3))
    assert 0 < deviation < 1e-15


# what is wrong, in which network, and at which block verify must find it
WRONG = [
    ("post-activation", 0, {"exit": "conv2"}, "relative deviation"),
    ("post-activation", 0, {"exit": "bn1"}, "relative deviation"),
    ("post-activation", 0, {"exit": "relu"}, "ran its branch exit 'relu' 2 times; expected once"),
    ("post-activation", 3, {"exit": "conv9"}, "no submodule 'conv9'"),
    ("post-activation", 2, {"entry": "conv9"}, "no submodule 'conv9'"),
    ("post-activation", 2, {"post": None}, "relative deviation"),
    ("post-activation", 2, {"post": "conv9"}, "no submodule 'conv9'"),
    ("post-activation", 4, {"post": torch.tanh}, "relative deviation"),
    ("post-activation", 5, {"post": lambda y: y[:, :1]}, r"makes shape \(3, 1, 3, 3\), the block \(3, 6, 3, 3\)"),
    ("post-activation", 3, {"shortcut": None}, "cannot be put together"),
    ("post-activation", 3, {"shortcut": "projection.0"}, "relative deviation"),
    ("post-activation", 3, {"shortcut": "relu"}, "cannot be put together"),
    ("post-activation", 1, {"preact": "relu", "shortcut": torch.abs, "scale": torch.neg}, "relative deviation"),
    ("post-activation", 1, {"scale": lambda r: r * float("nan")}, "relative deviation nan"),
    ("pre-activation", 3, {"preact": None}, "relative deviation"),
    ("pre-activation", 1, {"shortcut": nn.functional.relu}, "relative deviation"),
    ("pre-activation", 0, {"post": torch.relu}, "relative deviation"),
    ("functional", 1, {"scale": None}, "relative deviation"),
    ("functional", 3, {"shortcut": None}, "cannot be put together"),
    ("resnet basic", 1, {"post": None}, "relative deviation"),
    ("resnet basic eca, drop_path", 1, {"exit": "bn2"}, "relative deviation"),
    ("resnet bottleneck se, avg_down, blur", 0, {"shortcut": "downsample.1"}, "relative deviation"),
    ("resnetv2 basic", 2, {"preact": None}, "relative deviation"),
    ("resnetv2 post-activation", 2, {"exit": "norm2"}, "relative deviation"),
]


@pytest.mark.parametrize(("name", "index", "wrong", "message"), WRONG)
def test_wrong_adapters_are_caught(name, index, wrong, message):
    network = rl.wrap(models.build(name))
    snapshot = models.Snapshot(network.model)
    blocks = list(network.blocks)
    branch = dataclasses.replace(blocks[index].branch, **wrong)
    blocks[index] = dataclasses.replace(blocks[index], branch=branch)
    network.blocks = tuple(blocks)
    with pytest.raises(rl.AdapterError, match=message) as caught:
        network.verify(models.images(3, models.CASES[name].shape))
    assert repr(network.layers[index]) in str(caught.value)
    snapshot.check()


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (models.images(0), "at least one input"),
        (models.images(2) / 0, "only finite values"),
        (models.images(2) * torch.nan, "only finite values"),
        (models.images(2)[:, :1], r"does not take inputs of shape \(2, 1, 6, 6\)"),
    ],
)
def test_verify_refuses_inputs_that_show_nothing(inputs, message):
    with pytest.raises(ValueError, match=message):
        rl.wrap(models.build()).verify(inputs)


def test_trace_notes_shapes():
    model, inputs = models.build(), models.images(3)
    trace = rl.wrap(model).trace(inputs)
    assert [*zip(trace.input_shapes, trace.output_shapes, strict=True)] == reference.kinds(model, inputs)
    with torch.no_grad():
        torch.testing.assert_close(trace.output, model(inputs), rtol=0, atol=0)
    assert trace.n_classes == models.N_CLASSES
    with pytest.raises(ValueError, match=r"expected logits \(N, classes\) from the model, got \(3, 5, 1\)"):
        dataclasses.replace(trace, output=trace.output[..., None]).n_classes  # noqa: B018


@pytest.mark.parametrize(
    ("lesion", "row"),
    [
        ({"delete": "stage1.1"}, [0, -1, 2, 3, 4, 5]),
        ({"delete": 1}, [0, -1, 2, 3, 4, 5]),
        ({"delete": ["stage1.1", 3]}, [0, -1, 2, -1, 4, 5]),
        ({"delete": []}, [0, 1, 2, 3, 4, 5]),
        ({"delete": LAYERS}, [-1] * 6),
        ({"order": [2, 1, 0, 3, 5, 4]}, [2, 1, 0, 3, 5, 4]),
        ({"order": [1, 1, -1, -1, 4, 4]}, [1, 1, -1, -1, 4, 4]),
        ({"order": (0, 1, 2, 3, 4, 5)}, [0, 1, 2, 3, 4, 5]),
    ],
)
@pytest.mark.parametrize("name", models.HAND_BUILT)
def test_lesioned_runs_any_code_on_the_lesioned_model(name, lesion, row):
    case, model, inputs = models.CASES[name], models.build(name), models.images(3)
    with torch.no_grad(), rl.wrap(model).lesioned(**lesion) as lesioned:
        found = lesioned(inputs)
    torch.testing.assert_close(found, reference.logits(model, case, [row], inputs)[0], rtol=0, atol=0)
    with torch.no_grad():
        whole = reference.logits(model, case, [range(6)], inputs)[0]
        torch.testing.assert_close(model(inputs), whole, rtol=0, atol=0)


def test_lesions_nest():
    model, inputs = models.build(), models.images(3)
    network, case = rl.wrap(model), models.CASES["post-activation"]
    with torch.no_grad(), network.lesioned(delete="stage1.0"):
        with network.lesioned(order=[0, 1, 2, 3, 5, 4]):
            found = model(inputs)
        outer = model(inputs)
        result = rl.evaluate(network, (inputs, models.labels(3)), [[0, 1, 2, 3, 5, 4]], show_progress=False)
    both, one = reference.logits(model, case, [[-1, 1, 2, 3, 5, 4], [-1, 1, 2, 3, 4, 5]], inputs)
    torch.testing.assert_close(found, both, rtol=0, atol=0)
    torch.testing.assert_close(outer, one, rtol=0, atol=0)
    expected = nn.functional.cross_entropy(both, models.labels(3)).item()
    assert result.loss.item() == pytest.approx(expected, rel=1e-12)


def test_gradients_flow_through_a_lesion():
    model, inputs = models.build(), models.images(2).requires_grad_()
    with rl.wrap(model).lesioned(delete="stage1.1"):
        model(inputs).sum().backward()
    assert inputs.grad.abs().sum() > 0
    assert model.stage1[1].conv1.weight.grad is None
    assert model.stage1[0].conv1.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("lesion", "error", "message"),
    [
        ({}, ValueError, "exactly one of delete=.* and order="),
        ({"delete": [0], "order": range(6)}, ValueError, "exactly one of delete=.* and order="),
        (
            {"delete": "stage1.3"},
            ValueError,
            r"name of a block, got 'stage1.3'\. Did you mean .*'stage1\..*lists all 6",
        ),
        ({"delete": ["layer3.4"]}, ValueError, "name of a block, got 'layer3.4'"),
        ({"delete": 6}, ValueError, "index from 0 to 5, got 6"),
        ({"delete": -1}, ValueError, "index from 0 to 5, got -1"),
        ({"delete": [1.0]}, ValueError, "index from 0 to 5, got 1.0"),
        ({"delete": [None]}, ValueError, "index from 0 to 5, got None"),
        ({"order": [0, 1, 2]}, ValueError, r"\(n_lesions, 6\), a column per block, got shape \(1, 3\)"),
        ({"order": [[0, 1, 2, 3, 4, 5]]}, ValueError, r"got shape \(1, 1, 6\)"),
        ({"order": [0.0, 1, 2, 3, 4, 5]}, TypeError, "integer order rows, got float64"),
    ],
)
def test_lesions_that_do_not_fit_are_refused(lesion, error, message):
    network = rl.wrap(models.build())
    snapshot = models.Snapshot(network.model)
    with pytest.raises(error, match=message), network.lesioned(**lesion):
        pass
    snapshot.check()


def test_a_model_from_torch_compile_is_unwrapped():
    model = models.build()
    compiled = torch.compile(model)
    network = rl.wrap(compiled)
    assert network.model is model
    data = models.data(3)
    found = rl.Deletion(compiled).analyze(data, show_progress=False)
    assert found.loss.equals(rl.Deletion(model).analyze(data, show_progress=False).loss)


def compiled_in_place():
    model = models.build()
    model.compile()
    return model


def with_a_compiled_stage():
    model = models.build()
    model.stage1 = torch.compile(model.stage1)
    return model


def traced():
    return torch.jit.trace(models.build(), models.images(1))


def fx_extractor():
    return create_feature_extractor(models.build("resnet basic"), return_nodes=["layer3", "fc"])


def fx_features():
    return timm.create_model("resnet18", features_only=True, feature_cls="fx")


def without_statistics():
    model = models.build()
    model.stage1[0].bn1 = nn.BatchNorm2d(4, track_running_stats=False)
    return model


class Overrides(models.PostActivation):
    def forward(self, x):
        return 2 * super().forward(x)


def with_a_subclass():
    return models.Net(Overrides)


def without_known_blocks():
    class Unknown(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Linear(2, 2))

        def forward(self, x):
            return x + self.body(x)

    return nn.Sequential(Unknown(), Unknown())


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: "resnet50", r"expected a torch.nn.Module .*got str 'resnet50'.*timm.create_model\('resnet50'\)"),
        (lambda: None, "expected a torch.nn.Module or a ResidualNetwork, got NoneType"),
        (lambda: models.Net, "expected a torch.nn.Module or a ResidualNetwork, got type"),
        (lambda: nn.DataParallel(models.build()), r"the model is DataParallel, whose replicas .* Pass its \.module"),
        (lambda: nn.Sequential(nn.DataParallel(models.build())), "submodule '0' is DataParallel"),
        (fx_extractor, "the model is an FX graph .*Pass the model that it was made from"),
        (fx_features, "is an FX graph .*Pass the model that it was made from"),
        (traced, "the model is TorchScript.*Pass the model that it was made from"),
        (compiled_in_place, "the model is compiled and would ignore lesions. Pass the model before it is compiled"),
        (with_a_compiled_stage, "submodule 'stage1' is compiled"),
        (without_statistics, r"'stage1.0.bn1' \(BatchNorm2d\) normalises with the statistics of its batch"),
        (with_a_subclass, "Overrides overrides the forward of models.PostActivation.*Register an adapter"),
        (
            without_known_blocks,
            r"no residual block .*Its own .*Unknown.*Register an adapter.*Known block classes: .*BasicBlock",
        ),
        (lambda: nn.Sequential(nn.Linear(2, 2)), "no residual block .*only torch.nn modules"),
    ],
)
def test_models_that_cannot_be_lesioned_are_refused(make, message):
    model = make()
    for use in (rl.wrap, rl.Deletion, rl.Reorder, lambda m: rl.evaluate(m, models.data(2), [[0]])):
        with pytest.raises(TypeError, match=message):
            use(model)


def test_timms_list_of_features_is_refused():
    model = timm.create_model("resnet10t", features_only=True)
    with pytest.raises(
        rl.AdapterError, match=r"one tensor with a row for each of 1 inputs, got list\. Wrap a classifier"
    ):
        rl.Deletion(model).analyze((torch.zeros(1, 3, 32, 32), torch.tensor([0])), show_progress=False)
