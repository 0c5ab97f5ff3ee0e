import argparse
import pathlib
from collections import OrderedDict

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
import torchvision
from timm.utils import CheckpointSaver, ModelEmaV3
from torch import nn

from resnet_lesion.loading.models import model_by_name
from resnet_lesion.loading.weights import fit_weights, read_weights

NAME = "resnet18"


@pytest.fixture(scope="module")
def model():
    return timm.create_model(NAME, num_classes=3)


@pytest.fixture(scope="module")
def state(model):
    return model.state_dict()


@pytest.fixture(scope="module")
def averaged(state):
    return {name: value + 1 if value.is_floating_point() else value for name, value in state.items()}


@pytest.fixture
def read(tmp_path, state):
    """A function that saves what it is given and reads the weights from there, without a warning."""

    def read(content, **options):
        torch.save(content, tmp_path / "x.pth")
        return read_weights(tmp_path / "x.pth", state, say=pytest.fail, **options)

    return read


def same(weights, state):
    return weights.keys() == state.keys() and all(torch.equal(weights[name], state[name]) for name in state)


def prefixed(prefix, state):
    return {f"{prefix}{name}": value for name, value in state.items()}


@pytest.mark.parametrize(
    "prefix",
    ["", "module.", "_orig_mod.", "_orig_mod.module.", "module._orig_mod.", "model.", "model._orig_mod.module."],
)
@pytest.mark.parametrize("key", [None, "state_dict", "model", "model_state_dict"])
def test_prefixes_and_keys_in_any_nesting(read, state, prefix, key):
    content = prefixed(prefix, state)
    if key is not None:
        moments = {0: {"momentum_buffer": torch.zeros(3)}}
        content = {"epoch": 3, key: content, "optimizer": {"state": moments, "param_groups": [{"lr": 0.1}]}}
    assert same(read(content), state)


def test_what_stands_beside_the_network_is_left_out(read, state):
    assert same(read({"state_dict": {**prefixed("model.", state), "criterion.weight": torch.ones(3)}}), state)
    compiled = {name.replace("layer1.0.", "layer1.0._orig_mod."): value for name, value in state.items()}
    assert same(read(compiled), state)


def test_options_paths_and_scores_are_read_and_objects_are_not(read, state):
    options = argparse.Namespace(lr=0.1, out=pathlib.Path("out"), device=torch.device("cpu"))
    scores = {"best": np.float64(0.9), "epoch": np.int64(3)}
    assert same(read({"state_dict": OrderedDict(state), "args": options, **scores}), state)


def test_what_timms_training_script_writes(tmp_path, model, state):
    optimizer, args = torch.optim.SGD(model.parameters(), 0.1), argparse.Namespace(model=NAME, lr=0.1)
    ema = ModelEmaV3(model)
    nn.init.ones_(ema.module.fc.weight)
    CheckpointSaver(
        model, optimizer, args=args, model_ema=ema, checkpoint_dir=str(tmp_path), recovery_dir=str(tmp_path)
    ).save_checkpoint(0, metric=np.float64(0.5))
    said = []
    path = tmp_path / "model_best.pth.tar"
    assert same(read_weights(path, state, say=said.append), state)
    assert same(read_weights(path, state, ema=True, say=said.append), ema.module.state_dict())
    assert [line.partition(" holds both: ")[2] for line in said] == [
        "took the weights (state_dict), not their moving average (state_dict_ema); pass ema=True for that.",
        "took the moving average of the weights (state_dict_ema), not the weights (state_dict); "
        "leave out ema=True for those.",
    ]


@pytest.mark.parametrize(
    ("key", "average"),
    [("model", "model_ema"), ("state_dict", "ema_state_dict"), ("model", "ema"), ("model_state_dict", "ema_model")],
)
def test_moving_averages_are_taken_only_when_asked_for(tmp_path, model, state, averaged, key, average):
    path = tmp_path / "x.pth"
    # torch.optim.swa_utils.AveragedModel counts the models
    torch.save({key: state, average: {"n_averaged": torch.tensor(3), **prefixed("module.", averaged)}}, path)
    with pytest.warns(UserWarning, match=rf"took the weights \({key}\), not their moving average \({average}\)"):
        assert same(model_by_name(NAME, num_classes=3, checkpoint=path).state_dict(), state)
    with pytest.warns(UserWarning, match="took the moving average of the weights"):
        assert same(model_by_name(NAME, num_classes=3, checkpoint=path, ema=True).state_dict(), averaged)


def test_an_average_among_the_weights_of_a_module_that_has_both(tmp_path, state, averaged):
    path, said = tmp_path / "x.ckpt", []
    torch.save({"state_dict": {**prefixed("model.", state), **prefixed("ema_model.module.", averaged)}}, path)
    assert same(read_weights(path, state, say=said.append), state)
    assert same(read_weights(path, state, ema=True, say=said.append), averaged)
    assert len(said) == 2


def test_averages_that_are_not_there_or_all_there_is(read, state):
    with pytest.raises(ValueError, match=r"it holds no moving average of the weights\. Leave out ema=True\."):
        read({"state_dict": state}, ema=True)
    with pytest.raises(ValueError, match=r"moving averages of weights only \(model_ema\)\. Pass ema=True to take them"):
        read({"model_ema": state})
    assert same(read({"model_ema": state}, ema=True), state)
    with pytest.raises(ValueError, match="ema=True takes the moving average from a file of weights: pass checkpoint="):
        model_by_name(NAME, ema=True)


@pytest.mark.parametrize("name", ["x.safetensors", "x.pth", "x"])
def test_safetensors_under_any_name(tmp_path, state, name):
    safetensors.torch.save_file(prefixed("model.", state), tmp_path / name)
    assert same(read_weights(tmp_path / name, state), state)


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnext50_32x4d", "wide_resnet50_2"])
def test_weights_of_torchvisions_resnets_are_those_of_timms(tmp_path, name):
    theirs = torchvision.models.get_model(name, num_classes=3).eval()
    # the first of their files do not count batches
    old = {key: value for key, value in theirs.state_dict().items() if not key.endswith("num_batches_tracked")}
    torch.save(old, tmp_path / "theirs.pth")
    ours = model_by_name(name, checkpoint=tmp_path / "theirs.pth", num_classes=3).eval()
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(ours(images), theirs(images))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_precision_are_cast(tmp_path, model, state, dtype):
    cast = {name: value.to(dtype) if value.is_floating_point() else value for name, value in state.items()}
    torch.save(cast, tmp_path / "x.pth")
    loaded = model_by_name(NAME, num_classes=3, checkpoint=tmp_path / "x.pth").state_dict()
    assert {value.dtype for value in loaded.values()} == {torch.float32, torch.int64}
    assert all(torch.equal(loaded[name], cast[name].to(loaded[name].dtype)) for name in cast)


def test_a_network_for_grey_images(tmp_path):
    grey = timm.create_model(NAME, num_classes=3, in_chans=1)
    torch.save({"model": grey.state_dict()}, tmp_path / "grey.pth")
    loaded = model_by_name(NAME, num_classes=3, checkpoint=tmp_path / "grey.pth", image_size=28)
    assert same(loaded.state_dict(), grey.state_dict())
    assert loaded.pretrained_cfg["input_size"][1:] == (28, 28)


def without(state, *parts):
    return {name: value for name, value in state.items() if not name.startswith(parts)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: without(s, "fc."), r"it has no classifier \(fc\.weight, fc\.bias\)\. A backbone alone"),
        (
            lambda s: s | {"fc.weight": torch.zeros(7, 512), "fc.bias": torch.zeros(7)},
            r"its classifier has 7 outputs, and the model 3\. Pass num_classes=7\.$",
        ),
        (
            lambda s: without(s, "fc.", "layer4."),
            r"27 missing, such as layer4\.0\.conv1\.weight\. Is it of another model, or is num_classes= another\?$",
        ),
        (lambda s: s | {"extra": torch.zeros(1)}, r"1 unexpected, such as extra\. Is it of another model"),
        (lambda s: s | {"bn1.bias": torch.zeros(2)}, r"bn1\.bias of shape \(2,\) for \(64,\)\. Is it of another model"),
        (lambda s: s | {"bn1.bias": torch.zeros(64, dtype=torch.int8)}, r"bn1\.bias is torch\.int8, .* Dequantise it"),
        (lambda s: s | {"bn1.bias": torch.zeros(64, dtype=torch.cfloat)}, r"bn1\.bias is torch\.complex64"),
    ],
)
def test_weights_that_do_not_fit(tmp_path, model, state, change, message):
    before = {name: value.clone() for name, value in state.items()}
    with pytest.raises(ValueError, match=rf"^expected a state dict of this model, .* got 'x\.pth': {message}"):
        fit_weights(model, change(state), pathlib.Path("x.pth"))
    assert same(model.state_dict(), before)


class Smuggled:
    def __reduce__(self):
        return print, ("this must not run",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "it holds no weights"),
        ({"epoch": 3, "args": argparse.Namespace(lr=1)}, "it holds no weights"),
        (
            nn.Sequential(nn.Linear(1, 1)),
            r"it holds objects \(.*torch\.nn\.modules.*\) beside .* nothing else is unpickled",
        ),
        (
            {"state_dict": Smuggled()},
            r"it holds objects \(builtins\.print\) beside .*Save model\.state_dict\(\) alone\.",
        ),
        ({"model": {"a": torch.ones(1)}, "net": {"b": torch.ones(1)}}, r"it holds several networks: model, net\."),
    ],
)
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_files_that_hold_anything_else(read, content, message, capsys):
    with pytest.raises(ValueError, match=message):
        read(content)
    assert "must not run" not in capsys.readouterr().out


def test_a_whole_model_in_the_old_format(tmp_path, model, state):
    torch.save(model, tmp_path / "x.pth", _use_new_zipfile_serialization=False)
    with pytest.raises(ValueError, match=r"it does not hold plain weights, and nothing else is unpickled \(Unpickl"):
        read_weights(tmp_path / "x.pth", state)
    torch.save(state, tmp_path / "y.pth", _use_new_zipfile_serialization=False)
    assert same(read_weights(tmp_path / "y.pth", state), state)
