"""The whole of ``reproduce`` on a few images, and each claim's verdict on results made up for it."""

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
from resnet_lesion.paper.claims import claims
from resnet_lesion.paper.comparison import compare
from resnet_lesion.paper.reproduction import SUBJECTS, reproduce
from resnet_lesion.reports.summary import summarise_claims

N, LENGTHS = 20, np.arange(21)


def errs(n):
    """Three trainings that err on n images, on one more, and on two more of 200."""
    return [np.arange(200) >= n + i for i in range(3)]


def deletion(increase=0.0, down=0.05, baseline=0.06, n=N):
    error = np.full(n, baseline + increase)
    is_downsampling = np.zeros(n, dtype=bool)
    is_downsampling[[n // 3, 2 * n // 3]] = True
    error[is_downsampling] = baseline + down
    return xr.Dataset(
        {
            "error": ("layer", error),
            "error_low": ("layer", error - 0.01),
            "error_high": ("layer", error + 0.01),
            "baseline_error": baseline,
        },
        {"is_downsampling": ("layer", is_downsampling)},
        {"n_classes": 10},
    )


def groups(**changes):
    """Results that agree with the paper in everything, but for what is changed."""
    n_deleted = np.arange(1, 16)
    rising = xr.Dataset(
        {
            "error": (("n_deleted", "draw"), 0.06 + 0.014 * n_deleted[:, None] + [[-0.01, 0.0, 0.01]]),
            "remaining_fraction": (("n_deleted", "path_length"), rl.remaining_fraction(N, n_deleted).values),
        },
        {"n_deleted": n_deleted, "path_length": LENGTHS},
    )
    tau = np.linspace(1, 0.2, 12).reshape(4, 3)
    reorder = xr.Dataset({"kendall_tau": (("n_swaps", "draw"), tau), "error": (("n_swaps", "draw"), 1 - tau)})
    sampled = xr.Dataset({"mean_gradient_norm": ("path_length", 10.0 ** (-0.3 * LENGTHS))})
    effective = xr.Dataset(
        {
            "effective_high": 6,
            "effective_high_interval": ("quantile", [6.0, 7.0]),
            "effective_path_fraction": 0.003,
            "effective_path_fraction_interval": ("quantile", [0.002, 0.004]),
        }
    )
    return {
        "plain/deletion": deletion(),
        "plain/random_deletion": rising,
        "plain/reorder": reorder,
        "plain/sampled_path_gradient": sampled,
        "plain/effective_path": effective,
        "stochastic_depth/deletion": deletion(down=0.01),
        "vgg15/deletion": deletion(0.84, 0.84),
        "vgg15_bn/deletion": deletion(0.84, 0.84),
        "comparison": compare(errs(12), errs(12)[::-1]),
    } | changes


def verdicts(**changes):
    result = claims(groups(**{key.replace("__", "/"): value for key, value in changes.items()}))
    return {
        (str(figure), str(statement)): bool(agrees)
        for figure, statement, agrees in zip(
            result.figure.values, result.statement.values, result.agrees.values, strict=True
        )
    }


def test_results_like_the_papers_agree_in_everything():
    assert all(verdicts().values())
    assert len(verdicts()) == 15


def changed_error(name, values):
    dataset = groups()[name]
    return dataset.assign(error=(dataset.error.dims, np.broadcast_to(values, dataset.error.shape)))


@pytest.mark.parametrize(
    ("changes", "figure", "words"),
    [
        ({"plain__deletion": deletion(0.02)}, "3", "no noticeable impact"),
        ({"plain__deletion": deletion(0.02, 0.01)}, "3", "Only blocks that downsample"),
        ({"vgg15__deletion": deletion(0.5, 0.5)}, "3", "without batch norm"),
        ({"vgg15_bn__deletion": deletion(0.0, 0.0, baseline=0.9)}, "3", "with batch norm"),
        ({"plain__random_deletion": changed_error("plain/random_deletion", 0.5)}, "5a", "about 0.2"),
        (
            {"plain__random_deletion": changed_error("plain/random_deletion", np.arange(15)[:, None] % 2)},
            "5a",
            "rises smoothly",
        ),
        ({"plain__reorder": changed_error("plain/reorder", np.arange(3) * 0.1)}, "5b", "rises smoothly"),
        (
            {"plain__sampled_path_gradient": xr.Dataset({"mean_gradient_norm": ("path_length", 1.1**LENGTHS)})},
            "6b",
            "falls exponentially",
        ),
        ({"plain__effective_path": groups()["plain/effective_path"].assign(effective_high=15)}, "6c", "Almost all"),
        (
            {"plain__effective_path": groups()["plain/effective_path"].assign(effective_path_fraction=0.3)},
            "6c",
            "0.45 %",
        ),
        (
            {"comparison": compare(errs(12), errs(60))},
            "section 5",
            "no significant difference",
        ),
        ({"stochastic_depth__deletion": deletion(0.1, 0.1)}, "8", "slightly more resilient"),
        ({"stochastic_depth__deletion": deletion(-0.05, 0.04)}, "8", "mostly at the blocks that downsample"),
    ],
)
def test_results_unlike_the_papers_do_not(changes, figure, words):
    found = verdicts(**changes)
    (agrees,) = (agrees for (where, statement), agrees in found.items() if where == figure and words in statement)
    assert not agrees


def test_values_and_intervals():
    result = claims(groups())
    row = result.isel(claim=[str(words).startswith("With 10 random") for words in result.statement.values].index(True))
    assert float(row.paper) == 0.2
    assert float(row.ours) == pytest.approx(0.2)
    half = 4.302652729911275 * 0.01 / 3**0.5  # Student's t with two degrees of freedom
    assert [float(row.low), float(row.high)] == pytest.approx([0.2 - half, 0.2 + half])
    assert result.ours.attrs["long_name"] == "our value"


def test_claims_in_words():
    text = summarise_claims(claims(groups(**{"plain/deletion": deletion(0.02)})))
    assert "3         Deleting a block of the residual network has no noticeable impact: NO\n" in text
    assert "median increase of the error with one block deleted, blocks that downsample left out: 0.02 (" in text
    assert "yes if the increase is at most 0.01" in text


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
