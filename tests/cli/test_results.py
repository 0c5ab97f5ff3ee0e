import json

import pytest
from helpers import synthetic
from helpers.command import run
from PIL import Image

import resnet_lesion as rl


def test_show(result, capsys):
    assert run("show", result) == 0
    assert capsys.readouterr().out.startswith("model     tiny.test\n")


def test_show_as_json(result, capsys):
    assert run("show", result, "--json") == 0
    tree = rl.open(result)
    shown = json.loads(capsys.readouterr().out)
    assert shown["groups"]["deletion"]["data_vars"]["error"]["data"] == tree["deletion"].error.values.tolist()


@pytest.fixture
def one(tmp_path):
    """A result with a single figure: a page of all takes long."""
    rl.save(synthetic.deletion(), tmp_path / "one.nc")
    return tmp_path / "one.nc"


@pytest.mark.parametrize("out", [None, "elsewhere.html"])
def test_report(one, tmp_path, capsys, out):
    expected = one.with_suffix(".html") if out is None else tmp_path / out
    assert run("report", one, *([] if out is None else ["--out", expected])) == 0
    assert capsys.readouterr().out == f"Written to {expected}.\n"
    assert expected.read_text().startswith("<!doctype html>")


@pytest.mark.parametrize("out", [None, "elsewhere"])
def test_plot(one, tmp_path, capsys, out):
    assert run("plot", one, *([] if out is None else ["--out", tmp_path / out])) == 0
    expected = tmp_path / (out or "one-figures") / "error_by_block.png"
    assert capsys.readouterr().out == f"{expected}\n"
    with Image.open(expected) as image:
        assert image.size == (1200, 675)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("show none.nc", "there is no file 'none.nc'"),
        ("show text.nc", "expected a netCDF file, got 'text.nc'"),
        ("plot text.nc", "expected a netCDF file, got 'text.nc'"),
        ("report none.nc", "there is no file 'none.nc'"),
        ("report stranger.nc", "nothing to draw: its variables are ['x']"),
        ("report stranger.nc --out none/x.html", "the folder 'none' of --out does not exist"),
        ("plot stranger.nc", "nothing to draw: its variables are ['x']"),
    ],
)
def test_what_is_no_result(words, message, refused):
    assert message in refused(*words.split())
