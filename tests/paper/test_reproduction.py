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
    monkeypatch.setattr("resnet_lesion.cli.train.save_figures", lambda tree, _folder: list(tree.children))
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


def test_train_writes_what_study_reads(archive, tmp_path, capsys):
    out = tmp_path / "mine"
    command = ["train", "cifar_preactresnet38", "--data", archive, "--batch-size", 8, "--epochs", 1, "--workers", 0]
    command = [str(word) for word in [*command, "--stochastic-depth", 0.8, "--device", "cpu", "--out", out]]
    assert main(command) == 0
    assert f"Next: resnet-lesion study local-dir:{out}" in capsys.readouterr().out
    log = rl.open(out / "training.nc")
    assert log.sizes == {"epoch": 1, "layer": 18}
    assert log.attrs["history"].endswith(f"--out {out}")
    assert (out / "model.safetensors").exists()
    assert main(command) == 0  # goes on from its end
    xr.testing.assert_equal(rl.open(out / "training.nc"), log)
    assert main([*command, "--epochs", "2"]) == 2
    assert "is of another training: epochs=1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--stochastic-depth", "2"], "expected a probability of survival above 0 and up to 1, got 2.0"),
        (["--modules-per-batch", "99"], "expected modules_per_batch from 1 to 18, the number of blocks, got 99"),
        (["--optimizer", "sdg"], "sdg"),
        (["--data", "nowhere"], "expected --data as a folder or zip file"),
    ],
)
def test_train_says_what_is_wrong(archive, tmp_path, capsys, words, message):
    command = ["train", "cifar_preactresnet38", "--data", str(archive), "--epochs", "1", "--workers", "0"]
    assert main([*command, "--device", "cpu", "--out", str(tmp_path / "out"), *words]) == 2
    assert message in capsys.readouterr().err
