import json

import pytest
import xarray as xr
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


STRANGER = "which is netCDF of something else: it has the variables x."


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
        ("show empty", "expected a netCDF file, got the folder 'empty'"),
        ("show other.pth", "expected a netCDF file, got 'other.pth'"),
        ("show stranger.nc", f"got 'stranger.nc', {STRANGER}"),
        ("show stranger.nc --json", f"got 'stranger.nc', {STRANGER}"),
        ("report stranger.nc", f"got 'stranger.nc', {STRANGER}"),
        ("plot stranger.nc", f"got 'stranger.nc', {STRANGER}"),
        ("show none-in-it.nc", "which is netCDF of something else: it has no variable."),
        ("show part.nc", "'part.nc' is unfinished work of a study, from which the same study resumes; no result."),
    ],
)
def test_what_is_no_result(words, message, refused):
    assert message in refused(*words.split())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("plot one.nc --out x.png", "expected a folder to write to, got 'x.png', which is called like a file"),
        ("plot one.nc --out one.nc", "expected a folder to write to, got the file 'one.nc'"),
        ("report one.nc --out x.nc", "expected a name that ends in .html or .htm for --out, got 'x.nc'"),
        ("report one.nc --out none/x.html", "the folder 'none' of --out does not exist"),
        ("report one.html", "--out 'one.html' is one of the files that are read, and would replace it"),
    ],
)
def test_where_nothing_is_written(one, words, message, monkeypatch, capsys):
    monkeypatch.chdir(one.parent)
    one.with_suffix(".html").symlink_to(one)
    before = {path: path.read_bytes() for path in one.parent.iterdir()}
    assert run(*words.split()) == 2
    assert message in capsys.readouterr().err
    assert {path: path.read_bytes() for path in one.parent.iterdir()} == before


def test_what_a_file_says_cannot_steer_the_terminal(tmp_path, capsys):
    escape = "\x1b]0;owned\x07\x9b2J"
    result = synthetic.deletion().assign_attrs(title=f"A{escape}", model=escape, data=escape)
    layers = [f"{escape}{name}" for name in result.layer.values]
    rl.save(xr.DataTree.from_dict({"deletion": result.assign_coords(layer=layers)}), tmp_path / "hostile.nc")
    assert run("show", tmp_path / "hostile.nc") == 0
    shown = capsys.readouterr().out
    assert shown.count(r"\x1b]0;owned\x07\x9b2J") > 3
    assert run("show", tmp_path / "hostile.nc", "--json") == 0
    shown += capsys.readouterr().out
    assert run("merge", tmp_path / "hostile.nc", "--out", tmp_path / "out.nc") == 2
    shown += capsys.readouterr().err
    assert shown.replace("\n", "").isprintable()
