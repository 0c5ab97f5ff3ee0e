import os
import sys
import tempfile
from pathlib import Path

import pytest
from helpers import synthetic

import resnet_lesion as rl
from resnet_lesion.cli.output import HTML, NETCDF, check_folder, check_out, keep, words_beside
from resnet_lesion.results import storage


@pytest.fixture
def read_only(monkeypatch):
    """A folder in which nothing can be made; the superuser, who may run the tests, may write in any."""

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(storage, "whole_file", refuse)
    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)


def test_files_that_can_be_written_are_left_as_they_are(tmp_path):
    (tmp_path / "old.nc").write_text("as before")
    (tmp_path / "link.nc").symlink_to(tmp_path / "old.nc")
    (tmp_path / "dangling.nc").symlink_to(tmp_path / "made.nc")
    os.mkfifo(tmp_path / "pipe")
    before = sorted(tmp_path.iterdir())
    for name in ("old.nc", "new.nc", "new.NC4", "new", "link.nc", "dangling.nc", "pipe"):
        check_out(tmp_path / name, NETCDF)
    check_out(Path("/dev/null"), NETCDF)
    check_out(tmp_path / "page.html", HTML, sources=[tmp_path / "old.nc"])
    check_folder(tmp_path)
    check_folder(tmp_path / "new" / "folder-of-resnet50.a1_in1k")
    assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / "old.nc").read_text() == "as before"


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("none/x.nc", FileNotFoundError, r"the folder '.*none' of --out does not exist; create it first"),
        ("to-none.nc", FileNotFoundError, r"the folder '.*none' of --out does not exist; create it first"),
        ("folder", IsADirectoryError, "expected a file for --out, got the folder '.*folder'"),
        ("x.csv", ValueError, r"expected a name that ends in \.nc or \.nc4 for --out, got '.*x\.csv'"),
        ("resnet50.a1_in1k", ValueError, r"expected a name that ends in \.nc or \.nc4 for --out"),
        ("source.nc", ValueError, "is one of the files that are read, and would replace it"),
        ("to-source.nc", ValueError, "is one of the files that are read, and would replace it"),
        (f"{'x' * 252}.nc", OSError, "File name too long"),
        (f"{'x' * 246}.nc", OSError, "cannot be written: File name too long"),  # so is it while it is being written
    ],
)
def test_files_that_cannot_be_written_are_refused(tmp_path, name, error, message):
    (tmp_path / "folder").mkdir()
    (tmp_path / "source.nc").touch()
    (tmp_path / "to-source.nc").symlink_to("source.nc")
    (tmp_path / "to-none.nc").symlink_to("none/x.nc")
    with pytest.raises(error, match=message):
        check_out(tmp_path / name, NETCDF, sources=[tmp_path / "source.nc"])


def test_folders_that_cannot_be_written_to_are_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match=r"expected a folder to write to, got the file '.*file'"):
        check_folder(tmp_path / "file")
    with pytest.raises(OSError, match=r"'.*file/below' cannot be written to: Not a directory\."):
        check_folder(tmp_path / "file" / "below")
    for name in ("figures.png", "study.nc", "model.PTH"):
        with pytest.raises(ValueError, match=r"expected a folder to write to, got '.*', which is called like a file"):
            check_folder(tmp_path / name)
        (tmp_path / name).mkdir()
        check_folder(tmp_path / name)  # it is a folder all the same


def test_nothing_can_be_made_there(tmp_path, read_only):
    with pytest.raises(OSError, match=r"--out '.*x\.nc' cannot be written: Permission denied\."):
        check_out(tmp_path / "x.nc", NETCDF)
    with pytest.raises(OSError, match=r"'.*some/folder' cannot be written to: Permission denied\."):
        check_folder(tmp_path / "some" / "folder")


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """The folder for temporary files."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    return tmp_path / "temporary"


@pytest.mark.parametrize("has_folder", [True, False])
def test_a_result_that_cannot_be_written_is_kept_elsewhere(tmp_path, temporary, has_folder):
    result, run_folder = synthetic.tree(), tmp_path / "run"
    run_folder.mkdir()
    with pytest.raises(
        OSError, match=r"could not be written to --out '.*none/x\.nc'; it is kept in .* \(FileNotFoundError: "
    ) as caught:
        keep(result, tmp_path / "none" / "x.nc", run_folder if has_folder else None)
    (kept,) = (run_folder if has_folder else temporary).rglob("*.nc")
    assert repr(str(kept)) in str(caught.value)
    assert rl.open(kept).identical(result)
    assert [path.name for path in (temporary if has_folder else run_folder).iterdir()] == []


def test_a_result_that_can_be_written_nowhere(tmp_path, temporary, monkeypatch):
    def full(*_):
        raise OSError("no space left.")

    monkeypatch.setattr(storage, "save", full)
    with pytest.raises(OSError, match=r"; nor anywhere else \(OSError: no space left\.\)"):
        keep(synthetic.deletion(), tmp_path / "x.nc", tmp_path / "no-run-folder")
    assert list(temporary.iterdir()) == []


def test_words_do_not_go_into_the_file(tmp_path, monkeypatch):
    assert words_beside(tmp_path / "none.nc") is sys.stdout
    with (tmp_path / "file").open("w") as file:
        monkeypatch.setattr(sys, "stdout", file)
        assert words_beside(tmp_path / "file") is sys.stderr
        assert words_beside(tmp_path) is file
