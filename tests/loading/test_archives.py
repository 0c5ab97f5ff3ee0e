import io
import os
import pickle
import tarfile
import zipfile

import pytest
from helpers.image_files import tarred

from resnet_lesion.loading.archives import container, is_hidden


def anything(name):
    return True


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("files") / "root"
    for name in ("a/one.txt", "a/b/two.txt", "three.txt", ".hidden/four.txt"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"what is in {name}")
    return root


def zipped(folder, path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.mkdir("a")
        for file in folder.rglob("*.txt"):
            archive.write(file, file.relative_to(folder))
    return path


def packed(folder, kind, place):
    pack = {"folder": lambda folder, _: folder, "x.zip": zipped}.get(kind, tarred)
    return pack(folder, place / kind)


KINDS = ("folder", "x.zip", "x.tar", "x.tar.gz", "x.tar.xz", "x.tar.bz2")


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_holds_the_same_files_in_any_process(folder, tmp_path, kind):
    held = container(packed(folder, kind, tmp_path), lambda name: not any(map(is_hidden, name.split("/"))))
    assert sorted(held.names) == ["a/b/two.txt", "a/one.txt", "three.txt"]
    for files in (held, pickle.loads(pickle.dumps(held))):
        assert {name: files.read(name).decode() for name in held.names} == {
            name: f"what is in {name}" for name in held.names
        }


def test_what_is_hidden_is_looked_into_in_no_folder(folder):
    assert ".hidden/four.txt" not in container(folder, anything).names
    assert all(map(is_hidden, (".DS_Store", "._1.png", "__MACOSX", ".ipynb_checkpoints", "@eaDir")))
    assert not any(map(is_hidden, ("cat", "1.png", "_cat")))


def test_a_forked_process_opens_the_zip_file_itself(folder, tmp_path, monkeypatch):
    files = container(zipped(folder, tmp_path / "x.zip"), anything)
    files.read("three.txt")
    opened = files._archive
    files.read("a/one.txt")
    assert files._archive is opened
    monkeypatch.setattr(os, "getpid", lambda: -1)
    assert files.read("three.txt") == b"what is in three.txt"
    assert files._archive is not opened


def test_of_two_files_of_one_name_there_is_the_later(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("a/1.txt", "old")
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("a/1.txt", "new")
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for text in (b"older", b"new"):
            member = tarfile.TarInfo("a/1.txt")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text))
    for name in ("x.zip", "x.tar"):
        files = container(tmp_path / name, anything)
        assert files.names == ("a/1.txt",)
        assert files.read("a/1.txt") == b"new"


def test_backslashes_are_slashes_where_there_are_no_others(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("a\\b\\1.txt", "written by .NET")
        archive.writestr("a/c\\d.txt", "written by Linux")
    files = container(tmp_path / "x.zip", anything)
    assert files.names == ("a/b/1.txt", "a/c\\d.txt")
    assert files.read("a/b/1.txt") == b"written by .NET"


@pytest.mark.parametrize("kind", ["x.tar", "x.tar.gz"])
def test_a_link_in_a_tar_archive_is_the_file_it_leads_to(folder, tmp_path, kind):
    for name in ("one", "two", "three"):
        (tmp_path / "links").mkdir(exist_ok=True)
        (tmp_path / "links" / name).write_text("the same" if name == "one" else "")
    for name, link in (("two", os.link), ("three", os.symlink)):
        (tmp_path / "links" / name).unlink()
        link("one" if link is os.symlink else tmp_path / "links" / "one", tmp_path / "links" / name)
    files = container(tarred(tmp_path / "links", tmp_path / kind), anything)
    assert {files.read(name) for name in ("one", "two", "three")} == {b"the same"}


def test_a_tar_archive_that_ends_with_a_zip_file_is_a_tar_archive(folder, tmp_path):
    (tmp_path / "both").mkdir()
    zipped(folder, tmp_path / "both" / "inner.zip")
    assert container(tarred(tmp_path / "both", tmp_path / "outer.tar"), anything).names == ("inner.zip",)


@pytest.mark.parametrize("kind", ["x.zip", "x.tar", "x.tar.gz"])
def test_an_archive_that_is_cut_off_is_refused(folder, tmp_path, kind):
    (tmp_path / "large").mkdir()
    for name in "ab":
        (tmp_path / "large" / name).write_bytes(os.urandom(20_000))
    path = zipped(folder, tmp_path / kind) if kind == "x.zip" else tarred(tmp_path / "large", tmp_path / kind)
    content = path.read_bytes()
    # a zip file's index, at its end, tells where its files begin
    path.write_bytes(content[:-22] + b"PK\5\6" + b"\xff" * 18 if kind == "x.zip" else content[:-21_000])
    with pytest.raises(ValueError, match=r"cannot be read to its end: .*\. Is it all there\?$"):
        container(path, anything)


def test_a_link_that_leads_nowhere_is_refused(tmp_path):
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "lost").symlink_to("nowhere")
    path = tarred(tmp_path / "links", tmp_path / "x.tar")
    with pytest.raises(ValueError, match="lost is a link to a file that is not there"):
        container(path, anything)
    assert container(path, lambda name: name != "lost").names == ()


def test_a_folder_that_leads_back_to_itself_is_refused(tmp_path):
    for name in "abc":
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.txt").touch()
    (tmp_path / "a" / "b").symlink_to(tmp_path / "b")
    assert sorted(container(tmp_path, anything).names) == ["a/1.txt", "a/b/1.txt", "b/1.txt", "c/1.txt"]
    (tmp_path / "b" / "a").symlink_to(tmp_path / "a")
    with pytest.raises(OSError, match="leads back to one that it is in, without end"):
        container(tmp_path, anything)


def test_a_folder_that_cannot_be_read_is_refused(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    look = os.scandir

    def forbidden(path):
        if str(path).endswith("a"):
            raise PermissionError(13, "Permission denied", path)
        return look(path)

    monkeypatch.setattr(os, "scandir", forbidden)
    with pytest.raises(PermissionError, match=r"Permission denied: '.*a'"):
        container(tmp_path, anything)


def test_what_is_no_archive(tmp_path):
    (tmp_path / "x.zip").write_text("nothing")
    assert container(tmp_path / "x.zip", anything) is None
    assert container(tmp_path / "nowhere", anything) is None
