import json

import pytest
import torch
import xarray as xr
from helpers import synthetic
from helpers.command import run
from helpers.image_files import write_images, zipped

import resnet_lesion as rl
from resnet_lesion.loading.images import Source


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    write_images(folder / "images", n=4, size=8)
    return zipped(folder / "images", folder / "images.zip")


def test_train_writes_what_study_reads(archive, tmp_path, capsys):
    out = tmp_path / "mine"
    command = ["train", "cifar_preactresnet38", "--data", archive, "--batch-size", 8, "--epochs", 1, "--workers", 0]
    command += ["--stochastic-depth", 0.8, "--device", "cpu", "--out", out]
    assert run(*command) == 0
    assert f"Next: resnet-lesion study local-dir:{out}" in capsys.readouterr().out
    log = rl.open(out / "training.nc")
    assert log.sizes == {"epoch": 1, "layer": 18}
    assert log.attrs["history"].endswith(f"--out {out}")
    assert (out / "model.safetensors").exists()
    assert run(*command) == 0  # resumes from its end
    xr.testing.assert_equal(rl.open(out / "training.nc"), log)
    with pytest.warns(UserWarning, match="continues a training after epoch 1 of 1"):
        assert run(*command, "--epochs", 2) == 0
    longer = rl.open(out / "training.nc")
    assert longer.sizes["epoch"] == 2
    xr.testing.assert_equal(longer.train_loss[:1], log.train_loss)
    assert longer.attrs["continued"] == "after epoch 1 of 1"
    assert run(*command) == 2
    assert "is of another training: --epochs 2. Resume with" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--stochastic-depth", "2"], "expected a probability of survival above 0 and up to 1, got 2.0"),
        (["--modules-per-batch", "99"], "expected modules_per_batch from 1 to 18, the number of blocks, got 99"),
        (["--optimizer", "sdg"], "sdg"),
        (["--data", "nowhere"], "expected --data as a folder or zip file"),
        (["--warmup-epochs", "1"], "expected warmup_epochs from 0 to 0, got 1"),
        (["--data", "."], "expected subfolders train and validation in ., or --validation-data: the network would be"),
    ],
)
def test_train_says_what_is_wrong(archive, tmp_path, capsys, words, message):
    command = ["train", "cifar_preactresnet38", "--data", str(archive), "--epochs", "1", "--workers", "0"]
    assert run(*command, "--device", "cpu", "--out", tmp_path / "out", *words) == 2
    assert message in capsys.readouterr().err


def test_a_training_that_cannot_be_saved_says_that_nothing_is_lost(archive, tmp_path, monkeypatch, capsys):
    def full(*_):
        raise OSError("Is the disk full?")

    command = ["train", "cifar_preactresnet38", "--data", archive, "--batch-size", 8, "--epochs", 1, "--workers", 0]
    command += ["--device", "cpu", "--out", tmp_path / "mine"]
    with monkeypatch.context() as patch:
        patch.setattr("resnet_lesion.results.storage.save", full)
        assert run(*command) == 2
    assert "resnet-lesion: Is the disk full? Nothing is lost: once" in capsys.readouterr().err
    monkeypatch.setattr("resnet_lesion.training.loop._Training.train_one_epoch", None)
    assert run(*command) == 0
    assert rl.open(tmp_path / "mine" / "training.nc").sizes["epoch"] == 1


@pytest.mark.parametrize("command", ["train", "reproduce"])
def test_a_folder_to_write_to_is_checked_before_anything_else(command, tmp_path, capsys):
    (tmp_path / "file").touch()
    words = [command, *(["cifar_preactresnet38"] if command == "train" else []), "--data", "nowhere"]
    assert run(*words, "--out", tmp_path / "file") == 2
    assert "expected a folder to write to, got the file" in capsys.readouterr().err


def test_every_option_of_a_recipe_reaches_the_training(archive, tmp_path):
    words = "--epochs 2 --learning-rate 0.01 --warmup-epochs 1 --optimizer adamw --scheduler step --weight-decay 0.1"
    words += " --clip-gradient 1 --ema-decay 0.5 --modules-per-batch 3 --seed 7 --amp --channels-last --num-classes 5"
    words += " --validation-split train --batch-size 8 --workers 0 --device cpu"
    out = tmp_path / "out"
    assert run("train", "cifar_preactresnet38", "--data", archive, "--out", out, *words.split()) == 0
    log = rl.open(out / "training.nc")
    recipe = {"epochs": 2, "learning_rate": 0.01, "warmup_epochs": 1, "optimizer": "adamw", "scheduler": "step"}
    recipe |= {"weight_decay": 0.1, "clip_gradient": 1.0, "ema_decay": 0.5, "modules_per_batch": 3, "seed": 7}
    recipe |= {"autocast": True, "momentum": rl.Recipe().momentum}
    assert json.loads(log.attrs["options"]) == recipe
    assert log.attrs["data"] == f"{archive}, split train"
    assert json.loads((out / "config.json").read_text())["num_classes"] == 5


def test_options_reach_the_reproduction(archive, tmp_path, monkeypatch, capsys):
    asked = {}

    def reproduced(source, out, **options):
        asked.update(options, source=source, out=out)
        return xr.DataTree.from_dict({"claims": synthetic.training()})

    monkeypatch.setattr("resnet_lesion.paper.reproduction.reproduce", reproduced)
    monkeypatch.setattr("resnet_lesion.reports.summary.summarise_claims", lambda claims: "what became of them")
    monkeypatch.setattr("resnet_lesion.plots.catalogue.save_figures", lambda tree, folder: [folder] * 3)
    words = "--epochs 5 --n-seeds 2 --n-draws 4 --n-paths 6 --n-gradient-images 8 --num-samples 3 --seed 9 --amp"
    words += " --channels-last --parallel 1 --workers 0 --device cpu --batch-size 7"
    assert run("reproduce", "--data", archive, "--out", tmp_path / "out", *words.split()) == 0
    assert asked == {
        "source": Source(str(archive), batch_size=7),
        "out": tmp_path / "out",
        "recipe": rl.Recipe(epochs=5, warmup_epochs=2, autocast=True, seed=9),
        "n_seeds": 2,
        "n_draws": 4,
        "n_paths": 6,
        "n_gradient_images": 8,
        "num_samples": 3,
        "channels_last": True,
        "device": torch.device("cpu"),
        "workers": 1,
    }
    out = capsys.readouterr().out
    assert out == f"what became of them\n\nWritten to {tmp_path / 'out'}: reproduction.nc and 3 figures (*.png).\n"
    assert " resnet-lesion reproduce --data " in rl.open(tmp_path / "out" / "reproduction.nc").attrs["history"]


def test_a_reproduction_that_cannot_begin_leaves_no_folder(tmp_path, capsys):
    assert run("reproduce", "--data", tmp_path, "--out", tmp_path / "out") == 2
    assert "or --validation-data: the network would be evaluated" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
