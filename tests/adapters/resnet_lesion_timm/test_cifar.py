from importlib.resources import files

import pytest
import timm
import torch
from helpers import models
from safetensors.torch import load_file
from torch import nn

import resnet_lesion as rl
from resnet_lesion.digits import load_digits
from resnet_lesion.testing import check_adapter

NAME = "cifar_preactresnet110"
WEIGHTS = files("resnet_lesion_timm") / "weights" / f"{NAME}.digits.safetensors"


@pytest.fixture(scope="module")
def trained():
    return timm.create_model(NAME, pretrained=True).eval()


def test_the_papers_network():
    model = timm.create_model(NAME)
    network = rl.wrap(model)
    assert len(network) == 54
    assert sum(parameter.numel() for parameter in model.parameters()) == 1_730_522
    assert network.stage.tolist() == [0] * 18 + [1] * 18 + [2] * 18
    assert network.is_downsampling.nonzero()[0].tolist() == [18, 36]
    trace = network.trace(torch.zeros(1, 3, 32, 32))
    assert [trace.output_shapes[i] for i in (0, 18, 36)] == [(16, 32, 32), (32, 16, 16), (64, 8, 8)]
    assert models.randomised(model).eval() is model
    assert network.verify(models.images(2, (3, 8, 8), dtype=torch.float32)) < 1e-6


@pytest.mark.parametrize(("name", "n_blocks"), [("cifar_preactresnet56", 27), ("cifar_preactresnet38", 18)])
def test_its_siblings(name, n_blocks):
    model = timm.create_model(name, num_classes=7)
    assert check_adapter(model, torch.randn(2, 3, 8, 8)) < 1e-12
    network = rl.wrap(model)
    assert len(network) == n_blocks
    # two convolutions a block, the stem and the classifier
    assert 2 * n_blocks + 2 == int(name.removeprefix("cifar_preactresnet"))
    assert network.is_downsampling.nonzero()[0].tolist() == [n_blocks // 3, 2 * n_blocks // 3]


@pytest.mark.parametrize("name", ["cifar_vgg15", "cifar_vgg15_bn"])
def test_the_papers_contrast(name):
    model = timm.create_model(name, in_chans=1, num_classes=7)
    assert model(torch.zeros(2, 1, 16, 16)).shape == (2, 7)
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    assert len(convolutions) == 15
    assert {conv.out_channels for conv in convolutions} == {128}
    assert any(isinstance(module, nn.BatchNorm2d) for module in model.modules()) == name.endswith("bn")
    network = rl.wrap(model)
    assert len(network) == 14  # all but the first
    assert check_adapter(model, torch.randn(2, 1, 8, 8)) < 1e-12
    features = timm.create_model(name, features_only=True)
    assert [f.shape[1:] for f in features(torch.zeros(1, 3, 32, 32))] == [(128, 32, 32), (128, 16, 16), (128, 8, 8)]
    result = rl.Deletion(model).analyze((torch.randn(4, 1, 8, 8), torch.zeros(4).long()), show_progress=False)
    assert result.sizes["layer"] == 14
    with pytest.raises(ValueError, match="a plain network has a single path"):
        rl.PathGradient(model).analyze((torch.randn(4, 1, 8, 8), torch.zeros(4).long()), show_progress=False)


def test_it_is_registered_with_timm():
    assert timm.is_model(NAME)
    assert f"{NAME}.digits" in timm.list_models(f"{NAME}*", pretrained=True)
    model = timm.create_model(NAME, num_classes=7, in_chans=1)
    assert model(torch.zeros(2, 1, 16, 16)).shape == (2, 7)
    assert model.pretrained_cfg["tag"] == "digits"


def test_trained_weights_know_the_digits(trained):
    inputs, targets = load_digits("test")
    with torch.no_grad():
        correct = int((trained(inputs).argmax(1) == targets).sum())
    assert correct >= 0.97 * len(targets)


def test_weights_are_small_and_in_half_precision():
    assert len(WEIGHTS.read_bytes()) < 4_000_000
    tensors = load_file(str(WEIGHTS))
    assert {tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()} == {torch.float16}
    assert all(tensor.isfinite().all() for tensor in tensors.values())


def same_weights(model, other):
    return all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True))


def test_tags(trained):
    assert same_weights(timm.create_model(f"{NAME}.digits", pretrained=True), trained)
    assert not same_weights(timm.create_model(f"{NAME}.untrained"), trained)


def test_weights_from_a_file_of_ones_own(trained):
    overlay = {"file": str(WEIGHTS)}
    model = timm.create_model(f"{NAME}.untrained", pretrained=True, pretrained_cfg_overlay=overlay)
    assert same_weights(model, trained)


@pytest.mark.skipif(not hasattr(timm.models, "save_for_hf"), reason="timm knows such folders since 1.0.16")
def test_weights_from_a_folder_as_timm_saves_it(trained, tmp_path):
    timm.models.save_for_hf(trained, tmp_path, model_config={"num_classes": 10}, safe_serialization=True)
    model = timm.create_model(f"local-dir:{tmp_path}", pretrained=True)
    assert same_weights(model, trained)
    assert rl.wrap(model).layers == rl.wrap(trained).layers


def test_other_numbers_of_classes_and_channels_load_the_rest():
    model = timm.create_model(NAME, pretrained=True, num_classes=3, in_chans=1)
    assert model.eval()(torch.zeros(1, 1, 8, 8)).shape == (1, 3)


def test_features():
    model = timm.create_model(NAME, features_only=True)
    shapes = [tuple(features.shape[1:]) for features in model(torch.zeros(1, 3, 32, 32))]
    reductions = model.feature_info.reduction()
    assert [32 // height for _, height, _ in shapes] == reductions


def test_deleting_late_blocks_hardly_hurts(trained):
    """Deletion on the trained network shows what the paper shows: no single late block matters, the first do."""
    inputs, targets = load_digits("test")
    result = rl.Deletion(trained).analyze((inputs[:60], targets[:60]), show_progress=False)
    assert float(result.baseline_error) < 0.05
    assert float(result.error[-10:].max()) < 0.1
    assert float(result.error[0]) > 0.3
