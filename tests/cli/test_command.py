import matplotlib

matplotlib.use("Agg")

import ctypes
import json
import sys
from datetime import datetime
from types import SimpleNamespace

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
import xarray as xr
from helpers import synthetic
from matplotlib.image import imread
from PIL import Image

import resnet_lesion as rl
from resnet_lesion.cli import command as cli
from resnet_lesion.digits import load_digits

MODEL = "cifar_preactresnet110"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three digits of each class as image files, sorted by class as such folders are."""
    root = tmp_path_factory.mktemp("digits") / "validation"
    inputs, targets = load_digits("test")
    for label in range(10):
        (root / str(label)).mkdir(parents=True)
        for i, image in enumerate(inputs[targets == label][:3]):
            pixels = ((image.permute(1, 2, 0) + 1) * 127.5).round().byte().numpy()
            Image.fromarray(pixels).save(root / str(label) / f"{i}.png")
    return root.parent


@pytest.fixture
def quick(monkeypatch):
    """Leave out most of the work of a study, but none of what the command does for it."""

    def few(model, data, *, n_draws, n_paths, n_gradient_images, seed, **how):
        options = {"n_deleted": [3], "n_draws": n_draws, "seed": seed, "show_progress": False, **how}
        tree = xr.DataTree.from_dict({"deletion": rl.Deletion(model).analyze(data, **options)})
        tree.attrs |= {"n_paths": n_paths, "n_gradient_images": n_gradient_images}
        return tree

    monkeypatch.setattr("resnet_lesion.cli.study.study", few)


@pytest.fixture
def result(tmp_path):
    rl.save(synthetic.tree(), tmp_path / "result.nc")
    return tmp_path / "result.nc"


def run(*args):
    return cli.main([str(arg) for arg in args])


def study(folder, out, *args):
    assert run("study", MODEL, "--data", folder, "--out", out, "--workers", 0, "--n-draws", 1, *args) == 0
    return rl.open(out)


def test_models(capsys):
    assert run("models", "densenet121") == 0
    assert capsys.readouterr().out.startswith("densenet121: not covered: expected residual blocks, which are added")
    assert run("models", "cs*resnet50") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("cspresnet50: 13 blocks (BottleneckBlock); no path gradients: expected blocks in a row")
    assert lines[-1] == "1 of 1 covered."
    assert run("models", "resnet51") == 2
    assert "got 'resnet51'. Did you mean 'resnet51q'" in capsys.readouterr().err


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

    monkeypatch.setattr("resnet_lesion.cli.study.study", first_batch)
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
    assert tree["deletion"].attrs["weights_sha256"] == rl.results.provenance.weights_hash(model)
    assert tree["deletion"].attrs["n_classes"] == 3


def test_random_weights_are_remarked_on(folder, tmp_path, quick, capsys):
    study(folder, tmp_path / "out.nc", "--no-pretrained", "--num-samples", 4)
    assert "note: with random weights" in capsys.readouterr().err


DATA = ("--data", "digits", "--out", "out.nc")
WRONG = [
    (("show", "none.nc"), "there is no file 'none.nc'"),
    (("show", "text.nc"), "expected a netCDF file, got 'text.nc'"),
    (("plot", "text.nc"), "expected a netCDF file, got 'text.nc'"),
    (("report", "none.nc"), "there is no file 'none.nc'"),
    (("report", "stranger.nc"), "nothing to draw: its variables are ['x']"),
    (("report", "stranger.nc", "--out", "none/x.html"), "the folder 'none' of --out does not exist"),
    (("plot", "stranger.nc"), "nothing to draw: its variables are ['x']"),
    (("demo", "--out", "text.nc"), "expected a folder to write to, got the file 'text.nc'"),
    (("demo", "--num-samples", "541"), "expected a number of samples from 1 to 540, all images there are, got 541"),
    (("study", "resnet81", *DATA), "timm has no model 'resnet81'. Did you mean 'resnet18'"),
    (("study", "zzz", *DATA), "timm has no model 'zzz'. timm.list_models('*resnet*') lists those there are."),
    (("study", "resnet18.a9", *DATA), "Invalid pretrained tag (a9) for resnet18. Known tags: a1_in1k, "),
    (("study", "local-dir:none", *DATA), "Config file not found: none/config.json"),
    (("study", "resnet33ts", *DATA), "the pretrained weights of resnet33ts could not be loaded"),
    (("study", MODEL, *DATA, "--num-classes", "5"), "replaces the trained classifier by a random one"),
    (("study", MODEL, *DATA, "--checkpoint", "none.pth"), "there is no file 'none.pth' for --checkpoint"),
    (("study", MODEL, *DATA, "--checkpoint", "text.nc"), "got 'text.nc': it does not hold plain weights"),
    (("study", MODEL, *DATA, "--checkpoint", "other.pth"), "Is it of another model, or another --num-classes?"),
    (("study", MODEL, *DATA, "--checkpoint", "object.pth"), "nothing else is unpickled"),
    (("study", MODEL, *DATA, "--checkpoint", "other.pth", "--no-pretrained"), "got both"),
    (("study", MODEL, *DATA, "--device", "mps"), "--device mps "),
    (("study", MODEL, *DATA, "--device", "tpu9"), "expected --device as cpu, cuda or cuda:1, got 'tpu9'"),
    (("study", MODEL, *DATA, "--device", "cuda:99"), "--device cuda:99 cannot be used here"),
    (("study", MODEL, *DATA, "--split", "spare"), "expected --split train or test for the digits, got 'spare'"),
    (("study", MODEL, *DATA, "--num-samples", "541"), "expected a number of samples from 1 to 540"),
    (("study", MODEL, *DATA, "--image-size", "9"), "the digits are not scaled: expected no image size, got 9"),
    (("study", "resnet18", "--no-pretrained", *DATA), "the data has 10 classes and the model 1000 outputs"),
    (("study", "densenet121", "--no-pretrained", "--num-classes", "10", *DATA), "DenseNet concatenates"),
    (("study", "inception_v3", "--no-pretrained", "--num-classes", "10", *DATA), "no residual block"),
    (("study", MODEL, "--data", "none", "--out", "out.nc"), "got 'none', which is none of these"),
    (("study", MODEL, "--data", "empty", "--out", "out.nc"), "--data empty: Found 0 images"),
    (("study", MODEL, "--data", "torch/cifar10", "--out", "out.nc"), "--data torch/cifar10 needs --data-dir DIR"),
    (("study", MODEL, "--data", "torch/cifar10", "--data-dir", "empty", "--out", "o.nc"), "Pass --download to get it."),
    (
        ("study", MODEL, "--data", "torch/zzz", "--data-dir", "empty", "--out", "o.nc"),
        "Unknown torchvision dataset zzz",
    ),
    (("study", MODEL, "--data", "digits", "--out", "none/out.nc"), "the folder 'none' of --out does not exist"),
    (("study", MODEL, "--data", "digits", "--out", "empty"), "expected a file for --out, got the folder 'empty'"),
]


class Smuggled:
    def __reduce__(self):
        return print, ("this must not run",)


@pytest.mark.parametrize(("args", "message"), WRONG, ids=[" ".join(args[:6]) for args, _ in WRONG])
# torch warns of the pickle protocol that a hand-made checkpoint has
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_bad_input_gives_one_line_and_exit_code_2(args, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.nc").write_text("not netCDF")
    (tmp_path / "empty").mkdir()
    rl.save(xr.Dataset({"x": ("y", ["a"])}), tmp_path / "stranger.nc")
    torch.save({"head.fc.weight": torch.zeros(3, 64, 1, 1)}, tmp_path / "other.pth")
    torch.save({"state_dict": Smuggled()}, tmp_path / "object.pth")
    assert run(*args) == 2
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if not line.startswith("note: with random weights")]
    assert len(lines) == 1
    assert lines[0].startswith("resnet-lesion: ")
    assert message in lines[0]
    assert "must not run" not in captured.out
    assert not (tmp_path / "out.nc").exists()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((), "the following arguments are required: COMMAND"),
        (("paint",), "invalid choice: 'paint'"),
        (("demo", "--n-darws", "2"), "unrecognized arguments: --n-darws 2. Did you mean '--n-draws'?"),
        (("study", MODEL, "--shard", "env"), 'argument --shard: shard="env" found none of'),
        (("study", MODEL, "--shard", "3/3"), "argument --shard: expected I/N with 0 <= I < N, or env, got '3/3'"),
        (("study", MODEL), "the following arguments are required: --out, --data"),
        (("demo", "--n-draws", "0"), "argument --n-draws: expected a whole number >= 1, got '0'"),
        (("demo", "--seed", "x"), "argument --seed: expected a whole number >= 0, got 'x'"),
    ],
)
def test_bad_usage_gives_exit_code_2(args, message, capsys):
    with pytest.raises(SystemExit) as exit_:
        run(*args)
    assert exit_.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert error.endswith(" --help shows what it takes.\n")


@pytest.mark.parametrize(
    "command", ["demo", "study", "merge", "show", "plot", "report", "train", "reproduce", "models"]
)
def test_help_shows_an_example(command, capsys):
    with pytest.raises(SystemExit) as exit_:
        run(command, "--help")
    assert exit_.value.code == 0
    assert f"\n  resnet-lesion {command} " in capsys.readouterr().out.partition("\nexample")[2]


def test_help_gives_defaults(capsys):
    with pytest.raises(SystemExit):
        run("study", "--help")
    output = " ".join(capsys.readouterr().out.split())
    assert "seed of everything random (default: 0)" in output
    assert "images in a batch (default: 64)" in output
    assert "None" not in output
    assert "False" not in output


def test_debug_shows_the_traceback(tmp_path):
    with pytest.raises(FileNotFoundError):
        run("show", tmp_path / "none.nc", "--debug")


def raising(error):
    def raise_(*_, **__):
        raise error

    return raise_


def test_other_errors_and_interruptions_have_their_own_exit_codes(result, monkeypatch, capsys):
    monkeypatch.setattr("resnet_lesion.cli.results.summarise", raising(ZeroDivisionError("something\nodd")))
    assert run("show", result) == 1
    assert capsys.readouterr().err == "resnet-lesion: ZeroDivisionError: something odd (--debug shows where)\n"
    monkeypatch.setattr("resnet_lesion.cli.results.summarise", raising(KeyboardInterrupt))
    assert run("show", result) == 130
    assert capsys.readouterr().err == "resnet-lesion: interrupted\n"


def test_show(result, capsys):
    assert run("show", result) == 0
    assert capsys.readouterr().out.startswith("model     tiny.test\n")


def test_show_as_json(result, capsys):
    assert run("show", result, "--json") == 0
    tree = rl.open(result)
    shown = json.loads(capsys.readouterr().out)
    assert shown["groups"]["deletion"]["data_vars"]["error"]["data"] == tree["deletion"].error.values.tolist()


@pytest.mark.parametrize("out", [None, "elsewhere.html"])
def test_report(result, tmp_path, capsys, out):
    expected = result.with_suffix(".html") if out is None else tmp_path / out
    assert run("report", result, *([] if out is None else ["--out", expected])) == 0
    assert capsys.readouterr().out == f"Written to {expected}.\n"
    assert expected.read_text().startswith("<!doctype html>")


def test_completion(capsys):
    with pytest.raises(SystemExit) as exit_:
        run("--print-completion", "bash")
    assert exit_.value.code == 0
    script = capsys.readouterr().out
    assert "--modules-per-batch" in script
    assert "report" in script


@pytest.mark.parametrize("out", [None, "elsewhere"])
def test_plot(tmp_path, capsys, out):
    rl.save(synthetic.deletion(), tmp_path / "one.nc")
    options = [] if out is None else ["--out", tmp_path / out]
    assert run("plot", tmp_path / "one.nc", *options) == 0
    expected = tmp_path / (out or "one-figures") / "error_by_block.png"
    assert capsys.readouterr().out == f"{expected}\n"
    with Image.open(expected) as image:
        assert image.size == (1200, 675)


def test_what_a_loading_process_says_is_one_line(folder, tmp_path, capsys):
    broken = next(folder.rglob("*.png"))
    broken.write_bytes(b"nothing")
    command = ("study", MODEL, "--data", folder, "--workers", 1, "--batch-size", 4, "--out", tmp_path / "out.nc")
    assert run(*command) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("resnet-lesion: the image ")
    assert "Traceback" not in error
    assert error.endswith("leave such images out with --skip-unreadable.")


@pytest.mark.skipif(sys.platform != "linux", reason="a setting of glibc")
@pytest.mark.parametrize("variables", [{}, {"MALLOC_TRIM_THRESHOLD_": "131072"}])
def test_a_process_of_its_own_keeps_its_memory(variables, monkeypatch, result):
    set_ = []
    library = SimpleNamespace(mallopt=lambda parameter, size: set_.append((parameter, size)))
    monkeypatch.setattr(ctypes, "CDLL", lambda _: library)
    for name in cli._MALLOPT:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["resnet-lesion", "show", str(result)])
    assert cli.main() == 0
    assert set_ == ([] if variables else [(-1, 2_000_000_000), (-3, 1_000_000_000)])
    set_.clear()
    assert run("show", result) == 0  # called by another's program
    assert not set_
    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace())
    assert cli.main() == 0
