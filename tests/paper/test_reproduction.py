"""The whole of ``reproduce`` on a few images."""

import json

import numpy as np
import pytest
import timm
import torch
import xarray as xr
from helpers.image_files import write_images, zipped

import resnet_lesion as rl
from resnet_lesion.cli.command import main
from resnet_lesion.loading.images import Source
from resnet_lesion.paper import reproduction
from resnet_lesion.paper.reproduction import SUBJECTS, reproduce


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    write_images(folder / "images", n=4, size=8)
    return zipped(folder / "images", folder / "images.zip")


@pytest.fixture
def small(monkeypatch):
    """Smaller networks, in this process, where they can be replaced."""
    for name, subject in SUBJECTS.items():
        if subject.model == "cifar_preactresnet110":
            changes = {"modules_per_batch": 7} if subject.changes else {}
            replaced = reproduction.Subject("cifar_preactresnet38", changes, subject.stochastic_depth, subject.repeated)
            monkeypatch.setitem(SUBJECTS, name, replaced)


@pytest.mark.sweep
def test_everything_is_trained_analysed_and_compared(archive, small, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("resnet_lesion.plots.catalogue.save_figures", lambda tree, _folder: list(tree.children))
    command = ["reproduce", "--data", archive, "--batch-size", 8, "--epochs", 1, "--n-seeds", 2, "--n-draws", 2]
    command += ["--n-paths", 2, "--n-gradient-images", 2, "--parallel", 1, "--workers", 0, "--device", "cpu"]
    command += ["--image-size", 12, "--num-samples", 6, "--channels-last"]
    assert main([str(word) for word in [*command, "--out", tmp_path]]) == 0
    assert "Training on effective paths only makes no significant difference" in capsys.readouterr().out
    tree = rl.open(tmp_path / "reproduction.nc")
    assert set(tree.children) == {*SUBJECTS, "training", "comparison", "claims"}
    repeated = {f"{name}-{seed}" for name in ("plain", "effective_paths") for seed in (0, 1)}
    trained = repeated | {"stochastic_depth-0", "vgg15-0", "vgg15_bn-0"}
    assert set(tree["training"].children) == trained
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == trained
    for name in trained:
        files = {path.name for path in (tmp_path / name).iterdir()}
        assert files == {"config.json", "model.safetensors", "training.nc"}
    log = tree["training/effective_paths-1"]
    assert json.loads(log.attrs["options"])["modules_per_batch"] == 7
    assert json.loads(log.attrs["options"])["seed"] == 1
    assert json.loads(tree["training/vgg15-0"].attrs["options"])["optimizer"] == "adamw"
    assert {"deletion", "random_deletion", "reorder", "effective_path"} < set(tree["plain"].children)
    assert tree["vgg15/deletion"].sizes["layer"] == 14

    # what was analysed is what was saved
    model = timm.create_model(f"local-dir:{tmp_path / 'stochastic_depth-0'}", pretrained=True).eval()
    assert model.num_classes == 2
    assert model.pretrained_cfg["input_size"] == (3, 12, 12)
    loader = Source(str(archive)).evaluation(model, torch.device("cpu"), num_samples=6)
    again = rl.Deletion(model).analyze(loader, show_progress=False)
    np.testing.assert_array_equal(again.correct, tree["stochastic_depth/deletion"].correct)
    assert tree.attrs["data"] == f"{archive}, split validation, scaled to 12x12 pixels"

    # a second run trains nothing
    monkeypatch.setattr(reproduction, "train", lambda *_args, **_options: pytest.fail("trained again"))
    options = {"n_seeds": 2, "n_draws": 2, "n_paths": 2, "n_gradient_images": 2, "num_samples": 6}
    options |= {"workers": 1, "show_progress": False, "channels_last": True}
    source = Source(str(archive), batch_size=8, image_size=12)
    again = reproduce(source, tmp_path, recipe=rl.Recipe(epochs=1), **options)
    xr.testing.assert_equal(again["claims"].to_dataset(), tree["claims"].to_dataset())

    # but takes no network that was trained otherwise for its own
    assert log.attrs["data"] == f"{archive}, split train, scaled to 12x12 pixels"
    assert tree["training/stochastic_depth-0"].attrs["stochastic_depth"] == 0.5
    with pytest.raises(ValueError, match=r"expected a network trained with recipe .* in .*plain-0, got .*'epochs': 1"):
        reproduce(source, tmp_path, recipe=rl.Recipe(epochs=2), **options)
    with pytest.raises(
        ValueError, match=r"expected a network trained with data digits, split train in .*plain-0, got "
    ):
        reproduce(Source("digits"), tmp_path, recipe=rl.Recipe(epochs=1), **options)
