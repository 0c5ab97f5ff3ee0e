import pytest
import timm
import torch
from helpers import models, reference
from helpers.chains import TOKENS, Transformer
from torch import nn

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


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (models.images(0), "at least one input"),
        (models.images(2) / 0, "only finite values"),
        (models.images(2) * torch.nan, "only finite values"),
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


@pytest.mark.parametrize("name", models.HAND_BUILT)
def test_a_lesioned_model_can_be_exported_compiled_and_vmapped(name):
    """What was made of it keeps the lesion; the model does not."""
    row = [2, 1, 0, 3, -1, 4]
    case, model, x = models.CASES[name], models.build(name), models.images(3)
    network = rl.wrap(model)
    snapshot = models.Snapshot(model)
    with torch.no_grad():
        with network.lesioned(order=row):
            exported = torch.export.export(model, (x,)).module()
            compiled = torch.compile(lambda x: model(x), backend="eager", fullgraph=True)
            found = [compiled(x), torch.func.vmap(lambda image: model(image[None])[0])(x)]
        found.append(exported(x))
        expected, whole = reference.logits(model, case, [row, range(6)], x)
        assert torch.equal(compiled(x), whole)
    torch._dynamo.reset()
    for outputs in found:
        torch.testing.assert_close(outputs, expected, rtol=1e-12, atol=1e-12)
    snapshot.check()


def test_a_lesioned_transformer_can_be_exported_compiled_and_vmapped():
    model, x = models.randomised(Transformer()).double().eval(), models.images(3, (TOKENS, 4))
    with torch.no_grad():
        with rl.wrap(model).lesioned(delete=["blocks.0.mlp", "blocks.2.mix"]):
            exported = torch.export.export(model, (x,)).module()
            compiled = torch.compile(lambda x: model(x), backend="eager", fullgraph=True)
            found = [compiled(x), torch.func.vmap(lambda image: model(image[None])[0])(x)]
        found.append(exported(x))
        y = model.stem(x)
        y = y + model.blocks[0].mix(model.blocks[0].norm1(y))
        y = model.blocks[1](y)
        expected = model.head((y + model.blocks[2].mlp(model.blocks[2].norm2(y))).mean(1))
        assert torch.equal(compiled(x), model(x))
    torch._dynamo.reset()
    for outputs in found:
        torch.testing.assert_close(outputs, expected, rtol=1e-12, atol=1e-12)


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


def test_timms_list_of_features_is_refused():
    model = timm.create_model("resnet10t", features_only=True)
    with pytest.raises(
        rl.AdapterError, match=r"a row for each of 5 inputs, got list with \[0\] \(5, 64, 16, 16\), \[1\] .*Take one"
    ):
        rl.Deletion(model).analyze((torch.zeros(1, 3, 32, 32), torch.tensor([0])), show_progress=False)
