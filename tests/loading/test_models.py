from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import timm
import torch

from resnet_lesion.loading.images import ImageSet, Source
from resnet_lesion.loading.models import load_weights, model_by_name, save_weights, untrained


def test_untrained_networks_fit_their_data(archive):
    digits = Source("digits").open()
    assert untrained("cifar_preactresnet110", digits, 10).pretrained_cfg["input_size"] == (3, 8, 8)
    of_images = untrained("cifar_preactresnet110", ImageSet(str(archive), "train").open(), 2)
    assert of_images.pretrained_cfg["input_size"] == (3, 32, 32)
    assert of_images(torch.zeros(1, 3, 32, 32)).shape == (1, 2)
    assert untrained("resnet18", digits, 10).num_classes == 10


def test_stochastic_depth_falls_linearly():
    model = untrained("cifar_preactresnet38", None, 10, stochastic_depth=0.5)
    kept = [1 - getattr(block.drop_path, "drop_prob", 0) for stage in model.stages for block in stage.blocks]
    np.testing.assert_allclose(kept, np.linspace(1, 0.5, 18))


def test_digits_keep_their_size():
    with pytest.raises(ValueError, match="the digits are not scaled: expected no image size, got 16"):
        untrained("cifar_preactresnet38", Source("digits").open(), 10, image_size=16)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet81", {}, "no model 'resnet81'. Did you mean"),
        ("cifar_vgg15", {"stochastic_depth": 0.5}, "cifar_vgg15.* has no stochastic depth"),
        ("resnet18", {"stochastic_depth": 0.0}, "above 0 and up to 1, got 0.0"),
        ("resnet18", {"stochastic_depth": 1.5}, "above 0 and up to 1, got 1.5"),
    ],
)
def test_wrong_networks(name, options, message):
    with pytest.raises(ValueError, match=message):
        untrained(name, None, 10, **options)


def test_seeds_and_the_global_random_state():
    before = torch.get_rng_state()
    a, b, c = (untrained("cifar_preactresnet38", None, 10, seed=seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(x, y) for x, y in zip(a.values(), b.values(), strict=True))
    assert any(not torch.equal(x, y) for x, y in zip(a.values(), c.values(), strict=True))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_saved_weights_come_back_by_us_and_by_timm(tmp_path, memory_format):
    model = untrained("cifar_preactresnet38", Source("digits").open(), 7, seed=3)
    model = model.to(memory_format=memory_format)
    strides = [parameter.stride() for parameter in model.parameters()]
    save_weights(model, tmp_path)
    assert [parameter.stride() for parameter in model.parameters()] == strides
    other = untrained("cifar_preactresnet38", Source("digits").open(), 7, seed=4)
    load_weights(other, tmp_path)
    by_timm = timm.create_model(f"local-dir:{tmp_path}", pretrained=True)
    assert by_timm.pretrained_cfg["input_size"] == (3, 8, 8)
    for loaded in (other, by_timm):
        pairs = zip(model.state_dict().values(), loaded.state_dict().values(), strict=True)
        assert all(torch.equal(x, y) for x, y in pairs)


NAME = "cifar_preactresnet38"


def same(model, other):
    return all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True))


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_weights_of_a_file(tmp_path, suffix):
    model, path = timm.create_model(NAME, num_classes=3), tmp_path / f"weights.{suffix}"
    state = model.state_dict()
    safetensors.torch.save_file(state, path) if suffix == "safetensors" else torch.save({"state_dict": state}, path)
    loaded = model_by_name(NAME, checkpoint=path, num_classes=3, image_size=12)
    assert same(loaded, model)
    # no result is to be said to be of the pretrained weights
    assert (loaded.pretrained_cfg["tag"], loaded.pretrained_cfg["input_size"]) == ("", (3, 12, 12))


def test_pretrained_and_random_weights():
    name = "cifar_preactresnet110"
    pretrained = model_by_name(name)
    assert same(pretrained, timm.create_model(name, pretrained=True))
    assert pretrained.pretrained_cfg["tag"] == "digits"
    random = model_by_name(name, pretrained=False, num_classes=3)
    assert (random.num_classes, random.pretrained_cfg["tag"]) == (3, "")


def test_the_seed_of_random_weights():
    before = torch.get_rng_state()
    one, again, other = (model_by_name(NAME, pretrained=False, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert same(one, again)
    assert not same(one, other)


def test_a_folders_weights_are_not_said_to_be_timms(tmp_path):
    save_weights(timm.create_model("resnet18", num_classes=3), tmp_path)
    assert timm.create_model(f"local-dir:{tmp_path}", pretrained=True).pretrained_cfg["tag"] == "a1_in1k"
    assert model_by_name(f"local-dir:{tmp_path}").pretrained_cfg["tag"] == ""


class Smuggled:
    def __reduce__(self):
        return print, ("this must not run",)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet81", {}, "timm has no model 'resnet81'. Did you mean 'resnet18'"),
        ("zzz", {}, r"timm has no model 'zzz'\. timm\.list_models\('\*resnet\*'\) lists those it has\."),
        ("resnet18.a9", {}, r"Invalid pretrained tag \(a9\) for resnet18\. Known tags: a1_in1k, .* Use checkpoint= or"),
        (
            "resnet33ts",
            {},
            "the pretrained weights of resnet33ts could not be loaded: .* pretrained=False for random ones",
        ),
        (
            NAME,
            {"num_classes": 5},
            "num_classes= replaces the trained classifier with a random one: pass checkpoint= with",
        ),
        (
            "../mine",
            {},
            r"got '\.\./mine'\. A folder is given as local-dir:\.\./mine",
        ),
        (NAME, {"checkpoint": "other.pth", "pretrained": False}, "expected checkpoint= or pretrained=False, got both"),
        (NAME, {"checkpoint": "other.pth"}, "Is it of another model, or is num_classes= another"),
        (NAME, {"checkpoint": "text.pth"}, r"got 'text\.pth': it does not hold plain weights"),
        (NAME, {"checkpoint": "object.pth"}, "nothing else is unpickled"),
        (
            NAME,
            {"checkpoint": "jax.npz"},
            r"expected weights of this model from JAX, got 'jax\.npz': .* expected an original JAX",
        ),
    ],
)
# torch warns of the pickle protocol that a hand-made checkpoint has
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_networks_that_cannot_be_built(name, options, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for file in ("text.pth", "jax.npz"):
        (tmp_path / file).write_text("no weights")
    torch.save({"head.fc.weight": torch.zeros(3, 64, 1, 1)}, tmp_path / "other.pth")
    torch.save({"state_dict": Smuggled()}, tmp_path / "object.pth")
    if "checkpoint" in options:
        options = options | {"checkpoint": Path(options["checkpoint"])}
    with pytest.raises(ValueError, match=message):
        model_by_name(name, **options)
    assert "must not run" not in capsys.readouterr().out


def test_files_that_are_not_there():
    with pytest.raises(FileNotFoundError, match=r"there is no file 'none\.pth' for checkpoint="):
        model_by_name(NAME, checkpoint=Path("none.pth"))
    with pytest.raises(FileNotFoundError, match=r"Config file not found: none/config\.json"):
        model_by_name("local-dir:none")
