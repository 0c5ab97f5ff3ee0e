"""What the subcommands read: images, results, and files that are neither."""

import matplotlib

matplotlib.use("Agg")

import pytest
import torch
import xarray as xr
from helpers import synthetic
from PIL import Image

import resnet_lesion as rl
from resnet_lesion.digits import load_digits


@pytest.fixture(scope="session")
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


@pytest.fixture(scope="session")
def result(tmp_path_factory):
    """A result of every analysis."""
    path = tmp_path_factory.mktemp("results") / "result.nc"
    rl.save(synthetic.tree(), path)
    return path


@pytest.fixture(scope="session")
def _wrong(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wrong")
    (folder / "text.nc").write_text("not netCDF")
    (folder / "empty").mkdir()
    rl.save(xr.Dataset({"x": ("y", ["a"])}), folder / "stranger.nc")
    rl.save(xr.Dataset({"correct": ((), 3)}, attrs={"fingerprint": "{}", "done": "{}"}), folder / "part.nc")
    rl.save(xr.Dataset(), folder / "none-in-it.nc")
    torch.save({"head.fc.weight": torch.zeros(3, 64, 1, 1)}, folder / "other.pth")
    return folder


@pytest.fixture
def refused(_wrong, monkeypatch, capsys):
    """A function that runs the command where such files are, and returns the one line that it says of bad input."""
    from helpers.command import run

    monkeypatch.chdir(_wrong)

    def refused(*words):
        before = set(_wrong.iterdir())
        assert run(*words) == 2
        lines = capsys.readouterr().err.splitlines()
        (line,) = (line for line in lines if not line.startswith("note: with random weights"))
        assert line.startswith("resnet-lesion: ")
        assert set(_wrong.iterdir()) == before
        return line

    return refused
