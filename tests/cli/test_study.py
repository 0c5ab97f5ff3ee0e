import json
import os
from datetime import datetime

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
import xarray as xr
from helpers import synthetic
from helpers.command import run
from matplotlib.image import imread

import resnet_lesion as rl
from resnet_lesion.digits import load_digits
from resnet_lesion.reports.summary import summarise
from resnet_lesion.results import storage
from resnet_lesion.results.provenance import weights_hash

MODEL = "cifar_preactresnet110"


@pytest.fixture
def quick(monkeypatch):
    """Leave out most of the work of a study, but none of what the command does for it."""

    def few(model, data, *, n_draws, n_paths, n_gradient_images, seed, **how):
        options = {"n_deleted": [3], "n_draws": n_draws, "seed": seed, "show_progress": False, **how}
        tree = xr.DataTree.from_dict({"deletion": rl.Deletion(model).analyze(data, **options)})
        tree.attrs |= {"n_paths": n_paths, "n_gradient_images": n_gradient_images}
        return tree

    monkeypatch.setattr("resnet_lesion.analyzers.study.study", few)


def study(folder, out, *args):
    assert run("study", MODEL, "--data", folder, "--out", out, "--workers", 0, "--n-draws", 1, *args) == 0
    return rl.open(out)


def test_study_analyses_what_timms_loader_reads(folder, tmp_path, quick, capsys):
    tree = study(folder, tmp_path / "out.nc")
    images = [torch.tensor(imread(path)[..., :3]) for path in sorted(folder.rglob("*.png"))]
    inputs = (torch.stack(images).permute(0, 3, 1, 2) - 0.5) / 0.5
    data = inputs, torch.arange(30) // 3
    model = timm.create_model(MODEL, pretrained=True)
    expected = rl.Deletion(model).analyze(data, n_deleted=3, n_draws=1, show_progress=False)
    xr.testing.assert_equal(tree["deletion"].correct, expected.correct)
    assert int(tree["deletion"].total) == 30
    np.testing.assert_allclose(tree["deletion"].loss, expected.loss, rtol=1e-4)
    output = capsys.readouterr().out
    assert "model     cifar_preactresnet110.digits\n" in output
    assert output.endswith(f"Written to {tmp_path / 'out.nc'}. Next: resnet-lesion plot {tmp_path / 'out.nc'}\n")


def test_gradients_are_measured_along_as_many_paths_as_asked_for(tmp_path, quick):
    some = ("--num-samples", 4, "--n-paths", 3, "--n-gradient-images", 20)
    assert study("digits", tmp_path / "out.nc", *some).attrs.items() >= {("n_paths", 3), ("n_gradient_images", 20)}
    assert study("digits", tmp_path / "out.nc", *some[:2]).attrs.items() >= {
        ("n_paths", 100),
        ("n_gradient_images", 128),
    }


def test_study_says_what_it_did(folder, tmp_path, quick):
    tree = study(folder, tmp_path / "out.nc", "--num-samples", 4, "--seed", 3)
    attrs = tree["deletion"].attrs
    assert attrs["data"] == f"4 images of shape 3x8x8 from {folder}, split validation, a random subset of 30 images"
    began, _, command = tree.attrs["history"].partition(": ")
    assert datetime.fromisoformat(began) <= datetime.fromisoformat(attrs["created"])
    assert command.startswith(f"resnet-lesion study {MODEL} --data {folder} --out ")
    assert json.loads(attrs["options"])["seed"] == 3


def test_a_study_in_shards_goes_on_and_is_merged(folder, tmp_path, quick, capsys, monkeypatch):
    whole = study(folder, tmp_path / "whole.nc")["deletion"].to_dataset()
    for i in range(3):
        study(folder, tmp_path / f"shard-{i}.nc", "--shard", f"{i}/3", "--run-folder", tmp_path / "run")
    assert len([*(tmp_path / "run").glob("random_deletion.?-of-3.part.nc")]) == 3
    shards = [tmp_path / f"shard-{i}.nc" for i in (2, 0, 1)]
    assert run("merge", *shards, "--out", tmp_path / "merged.nc") == 0
    merged = rl.open(tmp_path / "merged.nc")
    xr.testing.assert_equal(merged["deletion"].correct, whole.correct)
    assert merged["deletion"].attrs["data"] == whole.attrs["data"]
    last, first = merged.attrs["history"].split("\n")
    assert "+00:00: resnet-lesion merge " in last
    assert "+00:00: resnet-lesion study " in first
    assert capsys.readouterr().out.endswith(f"Next: resnet-lesion plot {tmp_path / 'merged.nc'}\n")

    monkeypatch.setattr(rl.ResidualNetwork, "isolated", None)  # nothing is computed again
    assert run("merge", *shards[:2], "--out", tmp_path / "some.nc") == 2
    assert "expected each shard once, got shard 1 of 3 missing." in capsys.readouterr().err
    assert run("merge", *shards, "--out", tmp_path / "nowhere" / "some.nc") == 2
    assert "of --out does not exist; create it first." in capsys.readouterr().err
    before = shards[0].read_bytes()
    assert run("merge", *shards, "--out", shards[0]) == 2
    assert "shard-2.nc' is one of the files that are read, and would replace it" in capsys.readouterr().err
    assert shards[0].read_bytes() == before


@pytest.mark.parametrize("shard", ["3", "3/3", "-1/3", "a/b", "1/2/3"])
def test_what_is_no_shard(shard, capsys):
    with pytest.raises(SystemExit):
        run("study", MODEL, "--data", "digits", "--out", "x.nc", f"--shard={shard}")
    assert f"expected I/N with 0 <= I < N, or env, got {shard!r}" in capsys.readouterr().err


def test_num_samples_is_a_random_subset_that_the_seed_reproduces(folder, tmp_path, quick):
    one, same, other = (
        study(folder, tmp_path / "out.nc", "--num-samples", 6, "--seed", seed)["deletion"].to_dataset()
        for seed in (1, 1, 2)
    )
    assert int(one.total) == 6
    xr.testing.assert_equal(one, same)
    assert float(one.baseline_loss) != float(other.baseline_loss)


def test_a_whole_folder_comes_in_random_order_so_that_gradients_see_several_classes(folder, monkeypatch, tmp_path):
    seen = []

    def first_batch(model, loader, **_):
        seen.extend(next(iter(loader))[1].tolist())
        return synthetic.tree()

    monkeypatch.setattr("resnet_lesion.analyzers.study.study", first_batch)
    study(folder, tmp_path / "out.nc", "--batch-size", 10)
    assert len(seen) == 10
    assert len(set(seen)) > 5


@pytest.mark.parametrize("split", ["train", "test"])
def test_study_of_the_digits(split, tmp_path, quick):
    tree = study("digits", tmp_path / "out.nc", "--split", split, "--num-samples", 8)
    assert int(tree["deletion"].total) == 8
    assert tree["deletion"].attrs["data"] == (
        f"8 images of shape 3x8x8 from digits, split {split}, a random subset of {len(load_digits(split)[0])} images"
    )


def test_data_whose_path_is_not_utf_8(folder, tmp_path, quick, capsys):
    latin = tmp_path / os.fsdecode(b"caf\xe9")
    latin.symlink_to(folder)
    tree = study(latin, tmp_path / "out.nc", "--num-samples", 4)
    assert r"caf\udce9, split validation" in tree["deletion"].attrs["data"]
    assert r"caf\udce9' --out " in tree.attrs["history"]
    assert r"caf\udce9, split validation" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        run("study", MODEL, "--data", folder, "--out", latin / "out.nc")
    assert "argument --out: expected a path in UTF-8, got " in capsys.readouterr().err


def test_a_study_that_cannot_be_saved_is_kept_elsewhere(tmp_path, quick, monkeypatch, capsys):
    def save(result, path):
        if path == tmp_path / "out.nc":
            raise OSError("'out.nc' cannot be written: NetCDF: HDF error. Is the disk full?")
        save_(result, path)

    save_ = storage.save
    monkeypatch.setattr(storage, "save", save)
    words = ("--num-samples", 4, "--n-draws", 1, "--run-folder", tmp_path / "run", "--out", tmp_path / "out.nc")
    assert run("study", MODEL, "--data", "digits", *words) == 2
    captured = capsys.readouterr()
    (kept,) = (tmp_path / "run").glob("resnet-lesion-*/result.nc")
    assert captured.err.splitlines()[-1] == (
        f"resnet-lesion: the result could not be written to --out '{tmp_path}/out.nc'; it is kept in '{kept}', move it "
        "from there (OSError: 'out.nc' cannot be written: NetCDF: HDF error. Is the disk full?)"
    )
    assert captured.out == f"{summarise(rl.open(kept))}\n"
    assert int(rl.open(kept)["deletion"].total) == 4


def test_images_are_scaled_to_the_size_asked_for(folder, tmp_path, quick):
    tree = study(folder, tmp_path / "out.nc", "--num-samples", 4, "--image-size", 12)
    expected = (
        "4 images of shape 3x12x12 from {}, split validation, scaled to 12x12 pixels, a random subset of 30 images"
    )
    assert tree["deletion"].attrs["data"] == expected.format(folder)


def test_study_of_a_named_data_set(folder, tmp_path, quick):
    tree = study("torch/image_folder", tmp_path / "out.nc", "--data-dir", folder, "--num-samples", 5)
    assert int(tree["deletion"].total) == 5


def test_class_map_says_which_folder_is_which_output(folder, tmp_path, quick):
    # "nine" sorts before "one": without the map the labels would be wrong
    names = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    renamed = tmp_path / "renamed"
    renamed.mkdir()
    for label in (1, 9):
        (renamed / names[label]).symlink_to(folder / "validation" / str(label))
    (tmp_path / "names.txt").write_text("\n".join(names))
    tree = study(renamed, tmp_path / "out.nc", "--class-map", tmp_path / "names.txt")
    assert int(tree["deletion"].total) == 6
    assert int(tree["deletion"].baseline_correct) == 6


def test_numeric_options_reach_the_model(folder, tmp_path, quick):
    tree = study(folder, tmp_path / "out.nc", "--num-samples", 4, "--amp", "--channels-last", "--device", "cpu")
    assert tree["deletion"].attrs["autocast"] == "bfloat16"
    assert tree["deletion"].attrs["device"] == "cpu"


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_study_of_a_checkpoint(folder, tmp_path, quick, suffix):
    model = timm.create_model(MODEL, num_classes=3)
    path = tmp_path / f"weights.{suffix}"
    state = model.state_dict()
    safetensors.torch.save_file(state, path) if suffix == "safetensors" else torch.save({"state_dict": state}, path)
    three = tmp_path / "three"
    three.mkdir()
    for label in "123":
        (three / label).symlink_to(folder / "validation" / label)
    tree = study(three, tmp_path / "out.nc", "--checkpoint", path, "--num-classes", 3)
    assert tree["deletion"].attrs["weights_sha256"] == weights_hash(model)
    assert tree["deletion"].attrs["n_classes"] == 3


def test_the_moving_average_of_a_checkpoint_is_taken_when_asked_for_and_said(folder, tmp_path, quick, capsys):
    model, average = timm.create_model(MODEL), timm.create_model(MODEL)
    torch.save({"model": model.state_dict(), "model_ema": average.state_dict()}, tmp_path / "\x85.pth")
    words = (folder, tmp_path / "out.nc", "--num-samples", 4, "--checkpoint", tmp_path / "\x85.pth")
    assert study(*words)["deletion"].attrs["weights_sha256"] == weights_hash(model)
    note = (
        f"note: '{tmp_path}/\\x85.pth' holds both: took the weights (model), not their moving average (model_ema); pass"
    )
    assert f"{note} --ema for that.\n" in capsys.readouterr().err
    assert study(*words, "--ema")["deletion"].attrs["weights_sha256"] == weights_hash(average)
    assert "leave out --ema for those.\n" in capsys.readouterr().err


def test_the_seed_reaches_random_weights(folder, tmp_path, quick):
    one, again, other = (
        study(folder, tmp_path / "out.nc", "--no-pretrained", "--num-samples", 4, "--seed", seed)["deletion"].attrs
        for seed in (1, 1, 2)
    )
    assert one["weights_sha256"] == again["weights_sha256"] != other["weights_sha256"]
    assert one["model"] == MODEL


def test_a_model_for_grey_images(folder, tmp_path, quick):
    grey = timm.create_model("resnet18", in_chans=1, num_classes=10, zero_init_last=False)
    torch.save(grey.state_dict(), tmp_path / "grey.pth")
    out = tmp_path / "out.nc"
    words = ["resnet18", "--checkpoint", tmp_path / "grey.pth", "--num-classes", 10, "--image-size", 16]
    words += ["--data", folder, "--num-samples", 4, "--workers", 0, "--n-draws", 1]
    assert run("study", *words, "--out", out) == 0
    attrs = rl.open(out)["deletion"].attrs
    assert attrs["weights_sha256"] == weights_hash(grey)
    assert attrs["data"].startswith("4 images of shape 1x16x16 from")


def test_random_weights_are_remarked_on(folder, tmp_path, quick, capsys):
    study(folder, tmp_path / "out.nc", "--no-pretrained", "--num-samples", 4)
    assert "note: with random weights" in capsys.readouterr().err


def test_an_environment_that_says_nothing_of_shards(capsys):
    with pytest.raises(SystemExit) as exit_:
        run("study", MODEL, "--shard", "env")
    assert exit_.value.code == 2
    assert 'argument --shard: shard="env" found none of' in capsys.readouterr().err


DIGITS = "--data digits --out out.nc"
RANDOM = f"{DIGITS} --no-pretrained"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (f"resnet81 {DIGITS}", "timm has no model 'resnet81'. Did you mean 'resnet18'"),
        (f"resnet18.a9 {DIGITS}", "Use --checkpoint or --no-pretrained for other weights."),
        (f"local-dir:none {DIGITS}", "Config file not found: none/config.json"),
        (f"resnet33ts {DIGITS}", "Use --checkpoint for local weights, or --no-pretrained for random ones."),
        (f"{MODEL} {DIGITS} --num-classes 5", "--num-classes replaces the trained classifier with a random one"),
        (f"{MODEL} {DIGITS} --checkpoint none.pth", "there is no file 'none.pth' for --checkpoint"),
        (f"{MODEL} {DIGITS} --checkpoint other.pth", "Is it of another model, or is --num-classes another?"),
        (f"{MODEL} {RANDOM} --checkpoint other.pth", "expected --checkpoint or --no-pretrained, got both"),
        (f"{MODEL} {DIGITS} --device tpu9", "expected --device as cpu, cuda or cuda:1, got 'tpu9'"),
        (f"{MODEL} {DIGITS} --split spare", "expected --split 'train' or 'test' for the digits, got 'spare'"),
        (f"{MODEL} {DIGITS} --class-map x.txt", "expected --class-map with a folder or archive of images only: --data"),
        (f"{MODEL} {DIGITS} --ema", "--ema takes the moving average from a file of weights: pass --checkpoint with it"),
        (f"{MODEL} {DIGITS} --num-samples 541", "expected a number of samples from 1 to 540"),
        (f"{MODEL} {DIGITS} --image-size 9", "the digits are not scaled: expected no image size, got 9"),
        (f"resnet18 {RANDOM}", "the data has 10 classes and the model 1000 outputs"),
        (f"densenet121 {RANDOM} --num-classes 10", "DenseNet concatenates"),
        (f"inception_v3 {RANDOM} --num-classes 10", "no residual block"),
        (f"{MODEL} --data none --out out.nc", "expected --data as a folder or zip file with a subfolder of images"),
        (f"{MODEL} --data empty --out out.nc", "--data 'empty': Found 0 images"),
        (
            f"{MODEL} --data torch/cifar10 --out out.nc",
            "--data 'torch/cifar10' needs --data-dir, where it is or (with --d",
        ),
        (f"{MODEL} --data torch/cifar10 --data-dir empty --out out.nc", "Pass --download to get it."),
        (f"{MODEL} --data torch/zzz --data-dir empty --out out.nc", "Unknown torchvision dataset zzz"),
        (f"{MODEL} --data digits --out none/out.nc", "the folder 'none' of --out does not exist"),
        (f"{MODEL} --data digits --out x.csv", "expected a name that ends in .nc or .nc4 for --out, got 'x.csv'"),
        (f"{MODEL} {DIGITS} --run-folder text.nc", "expected a folder to write to, got the file 'text.nc'"),
        (f"{MODEL} --data digits --out empty", "expected a file for --out, got the folder 'empty'"),
    ],
)
def test_bad_input_is_refused_in_the_words_of_the_command(words, message, refused):
    assert message in refused("study", *words.split())


@pytest.fixture
def three(folder, tmp_path):
    """Images of three of ten classes."""
    (tmp_path / "three").mkdir()
    for label in "258":
        (tmp_path / "three" / label).symlink_to(folder / "validation" / label)
    return tmp_path / "three"


def test_images_of_some_outputs_are_studied_when_the_outputs_have_names(three, tmp_path, quick):
    (tmp_path / "names.txt").write_text("\n".join("0123456789"))
    tree = study(three, tmp_path / "out.nc", "--classes", tmp_path / "names.txt")
    inputs, targets = load_digits("test")
    chosen = torch.cat([torch.where(targets == label)[0][:3] for label in (2, 5, 8)])
    model = timm.create_model(MODEL, pretrained=True).eval()
    correct = int((model(inputs[chosen]).argmax(1) == targets[chosen]).sum())
    assert (int(tree["deletion"].total), int(tree["deletion"].baseline_correct)) == (9, correct)


@pytest.mark.parametrize("option", ["--class-map", "--classes"])
def test_fewer_names_than_outputs_are_refused(three, tmp_path, capsys, option):
    (tmp_path / "names.txt").write_text("2\n5\n8\n")
    words = ("--data", three, option, tmp_path / "names.txt", "--out", tmp_path / "out.nc")
    assert run("study", MODEL, *words) == 2
    message = f"the names of all 10 outputs of the model, one a line, in {option} '{tmp_path}/names.txt', got 3 names."
    assert message in capsys.readouterr().err
    assert run("study", MODEL, "--data", three, "--out", tmp_path / "out.nc") == 2
    assert "the data has 3 classes and the model 10 outputs" in capsys.readouterr().err


def test_timm_knows_the_names_of_imagenets_outputs(folder, tmp_path, monkeypatch, capsys):
    (tmp_path / "some").mkdir()
    for synset, label in (("n01440764", 0), ("n02099601", 2), ("n15075141", 3)):  # the outputs 0, 207 and 999
        (tmp_path / "some" / synset).symlink_to(folder / "validation" / str(label))
    words = ["resnet18", "--no-pretrained", "--image-size", 16, "--data", tmp_path / "some", "--workers", 0]
    words += ["--out", tmp_path / "out.nc"]
    assert run("study", *words) == 2
    assert "synsets of ImageNet: pass --classes imagenet-1k if the outputs are ImageNet's" in capsys.readouterr().err
    seen = []

    def labels(model, loader, **_):
        seen.extend(target for _, targets in loader for target in targets.tolist())
        return synthetic.tree()

    monkeypatch.setattr("resnet_lesion.analyzers.study.study", labels)
    assert run("study", *words, "--classes", "imagenet-1k") == 0
    assert sorted(seen) == [0] * 3 + [207] * 3 + [999] * 3
    (tmp_path / "some" / "cat").symlink_to(folder / "validation" / "1")
    assert run("study", *words, "--classes", "imagenet-1k") == 2
    assert "one of the 1000 outputs in --classes 'imagenet-1k', got 'cat'. Rename it" in capsys.readouterr().err


def test_a_class_map_that_is_misspelt(folder, tmp_path, capsys):
    (tmp_path / "names.txt").write_text("zero\n1\n2\n3\n4\n5\n6\n7\n8\n9\n")
    words = ("--data", folder, "--class-map", tmp_path / "names.txt", "--out", tmp_path / "out.nc")
    assert run("study", MODEL, *words) == 2
    assert f"expected names of subfolders in --class-map '{tmp_path}/names.txt', got 'zero'" in capsys.readouterr().err
