import dataclasses
import pickle
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.image_files import tarred, write_images, zipped
from PIL import Image
from timm.data import create_dataset

import resnet_lesion as rl
from resnet_lesion.loading.files import Reader
from resnet_lesion.loading.images import ImageSet, Source, class_names
from resnet_lesion.loading.models import untrained
from resnet_lesion.runs.data import IGNORE_INDEX

CPU = torch.device("cpu")


@pytest.fixture(scope="module", params=["zip", "tar", "tar.gz"])
def packed(request, folder, tmp_path_factory):
    path = tmp_path_factory.mktemp("packed") / f"images.{request.param}"
    return zipped(folder, path) if request.param == "zip" else tarred(folder, path)


@pytest.mark.parametrize("split", ["train", "test", "validation"])
def test_an_archive_is_read_as_the_folder_it_was_made_from(folder, packed, split):
    of_folder, of_archive = (ImageSet(str(path), split).open() for path in (folder, packed))
    assert len(of_archive) == len(of_folder) == 6
    assert class_names(of_archive) == class_names(of_folder) == ["cat", "dog"]
    for i in range(6):
        (image, label), (other, other_label) = of_archive[i], of_folder[i]
        assert label == other_label
        assert image.tobytes() == other.tobytes()


def test_images_of_a_folder_come_as_from_timm(tmp_path):
    for name in ("b/10.png", "b/2.png", "10/x.jpg", "2/deep/cat/1.png", "B/2.png", "b/nested 3/a.PNG"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    timms = create_dataset("", root=str(tmp_path)).reader
    (tmp_path / "class map.txt").write_text("\n".join(sorted(timms.class_to_idx, key=timms.class_to_idx.get)))
    # "b" has images and a folder of images: the map says that both are classes
    ours = Reader(tmp_path, "validation", class_map=tmp_path / "class map.txt")
    named = [(str(Path(path).relative_to(tmp_path)), label) for path, label in timms.samples]
    # timm leaves "B/2.png" and "b/2.png" in the order of the file system
    assert sorted(ours.samples) == sorted(named)
    assert [name.lower() for name, _ in ours.samples] == [name.lower() for name, _ in named]


def test_all_kinds_of_images_are_read_and_nothing_that_is_hidden(tmp_path):
    root, image = tmp_path / "images", Image.new("RGB", (4, 4))
    kinds = ("png", "JPG", "webp", "bmp", "tif", "gif", "ppm")
    for i, kind in enumerate(kinds):
        (root / f"{i % 2}").mkdir(parents=True, exist_ok=True)
        image.save(root / f"{i % 2}" / f"{i}.{kind}")
    expected = sorted(f"{i % 2}/{i}.{kind}" for i, kind in enumerate(kinds))
    for junk in ("0/._0.png", "__MACOSX/0/._0.png", "1/.ipynb_checkpoints/1-checkpoint.png", ".trash/2.png", "._x.png"):
        (root / junk).parent.mkdir(parents=True, exist_ok=True)
        (root / junk).write_bytes(b"\0\5\x16\7Mac OS X")
    for name in ("0/.DS_Store", "0/Thumbs.db", "1/boxes.txt"):
        (root / name).write_text("no image")
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for file in filter(Path.is_file, root.rglob("*")):
            archive.write(file, f"top/{file.relative_to(root)}")
    for path, top in ((root, ""), (tmp_path / "x.zip", "top/"), (tarred(root, tmp_path / "x.tar"), "")):
        dataset = ImageSet(str(path)).open()
        assert [dataset.reader.filename(i) for i in range(7)] == [f"{top}{name}" for name in expected]
        assert [label for _, label in dataset] == [0, 0, 0, 0, 1, 1, 1]


def test_an_image_that_pillow_cannot_read_is_not_left_out_unsaid(folder, tmp_path):
    shutil.copytree(folder / "test", tmp_path / "images")
    (tmp_path / "images" / "cat" / "9.heic").write_bytes(b"\0\0\0\x18ftypheic")
    with pytest.raises(OSError, match=r"the image 'cat/9\.heic' cannot be read"):
        [*ImageSet(str(tmp_path / "images")).open()]


@pytest.mark.parametrize("stray", ["x.png", "cat/deep/x.png"])
def test_images_that_have_no_class_are_refused(folder, tmp_path, stray):
    root = tmp_path / "images"
    shutil.copytree(folder / "test", root)
    (root / stray).parent.mkdir(exist_ok=True)
    Image.new("RGB", (4, 4)).save(root / stray)
    beside = "x.png" if stray == "x.png" else r"cat/\d.png"
    for path in (root, zipped(root, tmp_path / "x.zip")):
        with pytest.raises(ValueError, match=rf"in the folder of its class, got '{beside}' beside such folders"):
            ImageSet(str(path)).open()
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    assert len(ImageSet(str(root), class_map=tmp_path / "classes.txt").open()) == 6


def test_images_without_any_folder_are_refused(folder):
    with pytest.raises(ValueError, match=r"in the folder of its class, got '\d\.png'"):
        ImageSet(str(folder / "test" / "cat")).open()


def test_a_class_may_have_the_name_of_a_split(tmp_path):
    for split in ("train", "test"):
        write_images(tmp_path / "images", splits=(split,), classes=("car", "plane", "train"))
    write_images(tmp_path / "flat", splits=("",), classes=("car", "plane", "train"))
    for path in (tmp_path / "images", zipped(tmp_path / "images", tmp_path / "x.zip"), tmp_path / "flat"):
        dataset = ImageSet(str(path), "train").open()
        assert class_names(dataset) == ["car", "plane", "train"]
        assert len(dataset) == 9


def test_a_split_that_is_not_there_is_refused_rather_than_another_read(tmp_path):
    root = write_images(tmp_path / "images", splits=("train", "first"))
    for path in (root, zipped(root, tmp_path / "x.zip")):
        for split in ("validation", "frist"):
            with pytest.raises(ValueError, match=f"Found 0 images of split='{split}'"):
                ImageSet(str(path), split).open()
        assert len(ImageSet(str(path), "first").open()) == 6


def test_sixteen_bit_images_are_not_white(tmp_path):
    (tmp_path / "a").mkdir()
    ramp = np.linspace(0, 65535, 64, dtype=np.uint16)[None].repeat(64, 0)
    Image.fromarray(ramp).save(tmp_path / "a" / "16.png")
    ((image, _),) = ImageSet(str(tmp_path)).open()
    np.testing.assert_array_equal(np.asarray(image), (ramp >> 8)[..., None].repeat(3, 2))


def test_a_zip_file_without_splits_is_read_whole(tmp_path):
    folder = write_images(tmp_path / "images", splits=("",))
    assert len(ImageSet(str(zipped(folder, tmp_path / "flat.zip")), "validation").open()) == 6


def test_a_zip_file_of_another_split_is_refused(tmp_path):
    folder = write_images(tmp_path / "images", splits=("train",))
    path = zipped(folder, tmp_path / "train.zip")
    with pytest.raises(ValueError, match=r"Found 0 images of split='test' in subfolders\. Supported .* \.png, \.jpg"):
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


@pytest.mark.parametrize(("form", "workers"), [("folder", 0), ("zip", 0), ("zip", 1), ("tar.gz", 1)])
def test_images_that_cannot_be_read_are_refused_or_left_out_and_counted(folder, tmp_path, impatient, form, workers):
    folder = path = damaged(folder, tmp_path / "images")
    if form != "folder":
        path = (zipped if form == "zip" else tarred)(path, tmp_path / f"damaged.{form}")
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
        assert class_names(ImageSet(str(data)).open()) == ["2", "10", "with space"]
    (tmp_path / "classes.txt").write_text("with space\n10\n2\n")
    for data in (archive, tmp_path / "images"):
        dataset = ImageSet(str(data), "train", class_map=tmp_path / "classes.txt").open()
        assert class_names(dataset) == ["with space", "10", "2"]
        assert sorted(label for _, label in dataset) == [0, 1, 2]
