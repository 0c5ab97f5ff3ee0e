import dataclasses
import os
import pickle
import shutil
import zipfile

import numpy as np
import pytest
import torch
from helpers.image_files import write_images, zipped
from PIL import Image

import resnet_lesion as rl
from resnet_lesion.loading.files import Reader
from resnet_lesion.loading.images import ImageSet, Source, class_names
from resnet_lesion.loading.models import untrained
from resnet_lesion.runs.data import IGNORE_INDEX

CPU = torch.device("cpu")


@pytest.mark.parametrize("split", ["train", "test", "validation"])
def test_a_zip_file_is_read_as_the_folder_it_was_made_from(folder, archive, split):
    of_folder, of_zip = (
        ImageSet(str(path), "test" if path == folder and split != "train" else split).open()
        for path in (folder, archive)
    )
    assert len(of_zip) == len(of_folder) == 6
    assert class_names(of_zip) == class_names(of_folder) == ["cat", "dog"]
    for i in range(6):
        (image, label), (other, other_label) = of_zip[i], of_folder[i]
        assert label == other_label
        assert image.tobytes() == other.tobytes()


def test_a_zip_file_without_splits_is_read_whole(tmp_path):
    folder = write_images(tmp_path / "images", splits=("",))
    assert len(ImageSet(str(zipped(folder, tmp_path / "flat.zip")), "validation").open()) == 6


def test_a_zip_file_of_another_split_is_refused(tmp_path):
    folder = write_images(tmp_path / "images", splits=("train",))
    path = zipped(folder, tmp_path / "train.zip")
    with pytest.raises(ValueError, match=r"has no image \(.*\) of split 'test' in a folder"):
        ImageSet(str(path), "test").open()


def damaged(images, folder):
    """Copy the images, cut one off, and put text into another."""
    shutil.copytree(images, folder)
    path = folder / "test" / "cat" / "1.png"
    path.write_bytes(path.read_bytes()[:-700])
    (folder / "test" / "dog" / "0.png").write_text("no image")
    return folder


def whole_network(source):
    model = untrained("cifar_preactresnet38", None, 2)
    return rl.evaluate(model, source.evaluation(model, CPU), [range(18)], show_progress=False)


@pytest.mark.parametrize(("form", "workers"), [("folder", 0), ("zip", 0), ("zip", 1)])
def test_images_that_cannot_be_read_are_refused_or_left_out_and_counted(folder, tmp_path, impatient, form, workers):
    folder = path = damaged(folder, tmp_path / "images")
    path = zipped(path, tmp_path / "damaged.zip") if form == "zip" else path
    source = Source(str(path), validation_split="test", batch_size=2, workers=workers)
    with pytest.raises(OSError, match=r"the image '.*cat/1\.png' cannot be read: .*skip_unreadable=True"):
        whole_network(source)
    result = whole_network(dataclasses.replace(source, skip_unreadable=True))
    assert (int(result.total), int(result.skipped)) == (4, 2)
    for name in ("cat/1", "dog/0"):
        (folder / "test" / f"{name}.png").unlink()
    readable = whole_network(Source(str(folder), validation_split="test"))
    np.testing.assert_array_equal(result.correct, readable.correct)
    np.testing.assert_allclose(result.loss, readable.loss, rtol=1e-6)


def test_a_damaged_zip_file(archive, tmp_path):
    content = bytearray(archive.read_bytes())
    middle = content.index(b"\x89PNG", content.index(b"train/cat/1.png")) + 40
    content[middle : middle + 20] = b"x" * 20
    archive = tmp_path / "damaged.zip"
    archive.write_bytes(content)
    dataset = ImageSet(str(archive), "train", skip_unreadable=True).open()
    assert [label for _, label in dataset].count(IGNORE_INDEX) == 1
    with pytest.raises(OSError, match="cannot be read: Bad CRC-32"):
        [*ImageSet(str(archive), "train").open()]


def test_a_reader_goes_to_other_processes(archive):
    reader = Reader(archive, "train")
    first = reader[0][0].read()
    copy = pickle.loads(pickle.dumps(reader))
    assert copy[0][0].read() == first
    assert copy.filename(0) == "train/cat/0.png"
    assert copy.filename(0, basename=True) == "0.png"


def test_a_folder_and_a_zip_file_number_their_classes_alike(tmp_path):
    archive = tmp_path / "images.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for name in ("10", "2", "with space"):
            (tmp_path / "images" / name).mkdir(parents=True)
            Image.new("RGB", (4, 4)).save(tmp_path / "images" / name / "a.png")
            file.write(tmp_path / "images" / name / "a.png", f"{name}/a.png")
    for data in (archive, tmp_path / "images"):
        assert class_names(ImageSet(str(data), "train").open()) == ["2", "10", "with space"]
    (tmp_path / "classes.txt").write_text("with space\n10\n2\n")
    for data in (archive, tmp_path / "images"):
        dataset = ImageSet(str(data), "train", class_map=tmp_path / "classes.txt").open()
        assert class_names(dataset) == ["with space", "10", "2"]
        assert sorted(label for _, label in dataset) == [0, 1, 2]


def test_a_forked_process_opens_the_zip_file_itself(archive, monkeypatch):
    reader = Reader(archive, "train")
    expected = reader[0][0].read()
    opened = reader._archive
    assert reader[1][0].read() != expected
    assert reader._archive is opened
    monkeypatch.setattr(os, "getpid", lambda: -1)
    assert reader[0][0].read() == expected
    assert reader._archive is not opened
