import dataclasses
import os
import pickle
import zipfile

import numpy as np
import pytest
import timm
import torch
from helpers.image_files import write_images, zipped
from PIL import Image

import resnet_lesion as rl
from resnet_lesion.digits import load_digits
from resnet_lesion.loading.files import ZipReader
from resnet_lesion.loading.images import Source, class_names, described, open_images
from resnet_lesion.loading.loaders import choose_samples, subset_loader
from resnet_lesion.loading.models import load_weights, save_weights, untrained
from resnet_lesion.runs.data import IGNORE_INDEX

CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path):
    return write_images(tmp_path / "images")


@pytest.fixture
def archive(folder, tmp_path):
    return zipped(folder, tmp_path / "images.zip")


@pytest.mark.parametrize("split", ["train", "test", "validation"])
def test_a_zip_file_is_read_as_the_folder_it_was_made_from(folder, archive, split):
    of_folder, of_zip = (
        open_images(str(path), "test" if path == folder and split != "train" else split) for path in (folder, archive)
    )
    assert len(of_zip) == len(of_folder) == 6
    assert class_names(of_zip) == class_names(of_folder) == ["cat", "dog"]
    for i in range(6):
        (image, label), (other, other_label) = of_zip[i], of_folder[i]
        assert label == other_label
        assert image.tobytes() == other.tobytes()


def test_a_zip_file_without_splits_is_read_whole(tmp_path):
    folder = write_images(tmp_path / "images", splits=("",))
    assert len(open_images(str(zipped(folder, tmp_path / "flat.zip")), "validation")) == 6


def test_a_zip_file_of_another_split_is_refused(tmp_path):
    folder = write_images(tmp_path / "images", splits=("train",))
    path = zipped(folder, tmp_path / "train.zip")
    with pytest.raises(ValueError, match=r"has no image \(.*\) of split 'test' in a folder"):
        open_images(str(path), "test")


def damaged(folder):
    """Cut one image off, and put text into another."""
    path = folder / "test" / "cat" / "1.png"
    path.write_bytes(path.read_bytes()[:-700])
    (folder / "test" / "dog" / "0.png").write_text("no image")
    return folder


@pytest.mark.parametrize("form", ["folder", "zip"])
@pytest.mark.parametrize("workers", [0, 2])
def test_images_that_cannot_be_read_are_refused_or_left_out_and_counted(folder, tmp_path, impatient, form, workers):
    path = damaged(folder)
    path = zipped(path, tmp_path / "damaged.zip") if form == "zip" else path
    model = timm.create_model("cifar_preactresnet38", num_classes=2)
    source = Source(str(path), validation_split="test", batch_size=2, workers=workers)
    with pytest.raises(OSError, match=r"the image '.*cat/1\.png' cannot be read: .*--skip-unreadable"):
        rl.Deletion(model).analyze(source.evaluation(model, CPU), show_progress=False)
    source = dataclasses.replace(source, skip_unreadable=True)
    result = rl.Deletion(model).analyze(source.evaluation(model, CPU), show_progress=False)
    assert (int(result.total), int(result.skipped)) == (4, 2)
    for name in ("cat/1", "dog/0"):
        (folder / "test" / f"{name}.png").unlink()
    readable = rl.Deletion(model).analyze(
        Source(str(folder), validation_split="test").evaluation(model, CPU), show_progress=False
    )
    np.testing.assert_array_equal(result.correct, readable.correct)
    np.testing.assert_allclose(result.loss, readable.loss, rtol=1e-6)


def test_a_damaged_zip_file(archive):
    content = bytearray(archive.read_bytes())
    middle = content.index(b"\x89PNG", content.index(b"train/cat/1.png")) + 40
    content[middle : middle + 20] = b"x" * 20
    archive.write_bytes(content)
    dataset = open_images(str(archive), "train", skip_unreadable=True)
    assert [label for _, label in dataset].count(IGNORE_INDEX) == 1
    with pytest.raises(OSError, match="cannot be read: Bad CRC-32"):
        [*open_images(str(archive), "train")]


def test_a_class_map_chooses_and_orders_the_classes(archive, tmp_path):
    (tmp_path / "classes.txt").write_text("dog\ncat\n")
    dataset = open_images(str(archive), "train", class_map=tmp_path / "classes.txt")
    assert class_names(dataset) == ["dog", "cat"]
    assert [dataset[i][1] for i in range(6)] == [1, 1, 1, 0, 0, 0]
    (tmp_path / "classes.txt").write_text("dog\n")
    assert len(open_images(str(archive), "train", class_map=tmp_path / "classes.txt")) == 3


@pytest.mark.parametrize("kind", ["folder", "archive"])
def test_a_class_map_of_more_classes_is_right_but_a_misspelt_one_is_refused(kind, request, tmp_path):
    path, names = request.getfixturevalue(kind), tmp_path / "classes.txt"
    names.write_text("cow\ndog\ncat\n")
    assert [label for _, label in open_images(str(path), "train", class_map=names)] == [2, 2, 2, 1, 1, 1]
    names.write_text("dog\nkat\n")
    with pytest.raises(ValueError, match=r"got 'kat', which is none, and no line for 'cat'\.$"):
        open_images(str(path), "train", class_map=names)


@pytest.mark.parametrize("as_zip", [False, True])
def test_splits_may_have_any_name(as_zip, tmp_path):
    path = write_images(tmp_path / "images", splits=("first", "second"))
    path = zipped(path, tmp_path / "images.zip") if as_zip else path
    assert described(str(path), "first", None) == f"{path}, split first"
    source = Source(str(path), split="first", validation_split="second")
    assert (len(source.training_images), str(source)) == (6, f"{path}, split second")


def test_a_file_that_is_no_archive_is_refused_where_it_is_opened(tmp_path):
    (tmp_path / "images.txt").write_text("none")
    with pytest.raises(FileNotFoundError, match="expected --data as a folder or zip file"):
        _ = Source(str(tmp_path / "images.txt")).training_images


@pytest.mark.parametrize("as_zip", [False, True])
def test_data_without_splits_are_described_without_and_not_trained_on(as_zip, tmp_path):
    path = write_images(tmp_path / "images", splits=("",))
    path = zipped(path, tmp_path / "images.zip") if as_zip else path
    assert described(str(path), "validation", None) == str(path)
    with pytest.raises(ValueError, match=r"expected subfolders train and validation in .*, or --validation-data"):
        Source(str(path))
    assert len(Source(str(path), validation_data=str(path)).training_images) == 6


def test_a_reader_goes_to_other_processes(archive):
    reader = ZipReader(archive, "train")
    first = reader[0][0].read()
    copy = pickle.loads(pickle.dumps(reader))
    assert copy[0][0].read() == first
    assert copy.filename(0) == "train/cat/0.png"
    assert copy.filename(0, basename=True) == "0.png"


@pytest.mark.parametrize("data", ["nowhere", "nowhere.zip", "torchh/cifar10"])
def test_data_that_is_not_there(data):
    with pytest.raises(FileNotFoundError, match="expected --data as a folder or zip file"):
        open_images(data, "test")


def test_a_file_that_is_no_zip_file(tmp_path):
    (tmp_path / "x.zip").write_text("nothing")
    with pytest.raises(FileNotFoundError, match="zip file"):
        open_images(str(tmp_path / "x.zip"), "test")


@pytest.mark.parametrize("workers", [0, 2])
def test_training_images_are_shifted_mirrored_and_reproducible(archive, workers):
    model = timm.create_model("cifar_preactresnet38")
    loader = Source(str(archive), batch_size=4, workers=workers).training(model, CPU)
    assert len(loader) == 1  # the last two fill no batch

    def epoch(seed):
        torch.manual_seed(seed)
        ((inputs, targets),) = loader
        return inputs, targets

    (inputs, targets), (again, same), (other, _) = epoch(1), epoch(1), epoch(2)
    assert inputs.shape == (4, 3, 32, 32)
    assert torch.equal(inputs, again)
    assert torch.equal(targets, same)
    assert not torch.equal(inputs, other)
    whole = torch.cat([x for x, _ in Source(str(archive)).unchanged(model, CPU)])
    # each is one of the images or its mirror image, shifted by up to four pixels, black beyond its edge
    black = inputs.amin((0, 2, 3))[None, :, None, None]
    padded = torch.nn.functional.pad(torch.cat([whole, whole.flip(3)]) - black, (4, 4, 4, 4)) + black
    shifts = torch.stack([padded[:, :, y : y + 32, x : x + 32] for y in range(9) for x in range(9)])
    for image in inputs:
        assert (shifts - image).abs().flatten(2).amax(2).min() < 0.05


def test_digits_are_shifted_by_a_pixel_and_not_mirrored():
    source = Source("digits", batch_size=1257)
    model = untrained("cifar_preactresnet38", source.training_images, 10)
    ((inputs, targets),) = source.training(model, CPU)
    images, labels = load_digits("train")
    assert sorted(targets.tolist()) == sorted(labels.tolist())
    padded = torch.nn.functional.pad(images, (1, 1, 1, 1), mode="replicate")
    shifts = torch.stack([padded[:, :, y : y + 8, x : x + 8] for y in range(3) for x in range(3)])
    for image, label in zip(inputs[:20], targets, strict=False):
        assert (shifts[:, labels == label] == image).flatten(2).all(2).any()


def test_a_subset_is_loaded_in_its_order(archive):
    model = timm.create_model("cifar_preactresnet38")
    whole = torch.cat([x for x, _ in Source(str(archive)).evaluation(model, CPU)])
    dataset = open_images(str(archive), "test")
    ((inputs, targets),) = subset_loader(dataset, [5, 0], model, batch_size=4, workers=0, device=CPU)
    assert targets.tolist() == [1, 0]
    assert torch.equal(inputs, whole[[5, 0]])


def test_lesions_can_run_on_some_of_the_images(archive):
    model, source = timm.create_model("cifar_preactresnet38"), Source(str(archive))
    whole = torch.cat([x for x, _ in source.evaluation(model, CPU)])
    ((some, targets),) = source.evaluation(model, CPU, num_samples=4, seed=3)
    chosen = choose_samples(6, 4, seed=3)
    assert torch.equal(some, whole[chosen])
    assert targets.tolist() == [i // 3 for i in chosen]


def test_images_are_scaled_for_training_and_evaluation(archive):
    source = Source(str(archive), batch_size=6, image_size=12)
    images = source.training_images
    model = untrained("cifar_preactresnet38", images, 2, image_size=12)
    ((inputs, _),) = source.evaluation(model, CPU)
    original = torch.stack([torch.from_numpy(np.array(image)) for image, _ in open_images(str(archive), "test")])
    mean, std = (torch.tensor(model.pretrained_cfg[key])[:, None, None] for key in ("mean", "std"))
    for image, pixels in zip(inputs, original, strict=True):
        scaled = Image.fromarray(pixels.numpy()).resize((12, 12), Image.Resampling.BILINEAR)
        expected = (torch.from_numpy(np.array(scaled)).permute(2, 0, 1) / 255 - mean) / std
        torch.testing.assert_close(image, expected)
    ((changed, _),) = source.training(model, CPU)
    assert changed.shape[1:] == (3, 12, 12)


def test_sources_know_their_classes(archive):
    assert Source(str(archive)).n_classes == 2
    assert Source("digits").n_classes == 10


def test_untrained_networks_fit_their_data(archive):
    digits = Source("digits").training_images
    assert untrained("cifar_preactresnet110", digits, 10).pretrained_cfg["input_size"] == (3, 8, 8)
    of_images = untrained("cifar_preactresnet110", open_images(str(archive), "train"), 2)
    assert of_images.pretrained_cfg["input_size"] == (3, 32, 32)
    assert of_images(torch.zeros(1, 3, 32, 32)).shape == (1, 2)
    assert untrained("resnet18", digits, 10).num_classes == 10


def test_stochastic_depth_falls_linearly():
    model = untrained("cifar_preactresnet38", None, 10, stochastic_depth=0.5)
    kept = [1 - getattr(block.drop_path, "drop_prob", 0) for stage in model.stages for block in stage.blocks]
    np.testing.assert_allclose(kept, np.linspace(1, 0.5, 18))


def test_digits_keep_their_size():
    with pytest.raises(ValueError, match="the digits are not scaled: expected no image size, got 16"):
        untrained("cifar_preactresnet38", Source("digits").training_images, 10, image_size=16)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet81", {}, "no model 'resnet81'. Did you mean"),
        ("cifar_vgg15", {"stochastic_depth": 0.5}, "cifar_vgg15.* has no stochastic depth"),
        ("resnet18", {"stochastic_depth": 0.0}, "above 0 and up to 1, got 0.0"),
        ("resnet18", {"stochastic_depth": 1.5}, "above 0 and up to 1, got 1.5"),
    ],
)
def test_wrong_networks(name, options, message):
    with pytest.raises(ValueError, match=message):
        untrained(name, None, 10, **options)


def test_seeds_and_the_global_random_state():
    before = torch.get_rng_state()
    a, b, c = (untrained("cifar_preactresnet38", None, 10, seed=seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(x, y) for x, y in zip(a.values(), b.values(), strict=True))
    assert any(not torch.equal(x, y) for x, y in zip(a.values(), c.values(), strict=True))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_saved_weights_come_back_by_us_and_by_timm(tmp_path, memory_format):
    model = untrained("cifar_preactresnet38", Source("digits").training_images, 7, seed=3)
    model = model.to(memory_format=memory_format)
    strides = [parameter.stride() for parameter in model.parameters()]
    save_weights(model, tmp_path)
    assert [parameter.stride() for parameter in model.parameters()] == strides
    other = untrained("cifar_preactresnet38", Source("digits").training_images, 7, seed=4)
    load_weights(other, tmp_path)
    by_timm = timm.create_model(f"local-dir:{tmp_path}", pretrained=True)
    assert by_timm.pretrained_cfg["input_size"] == (3, 8, 8)
    for loaded in (other, by_timm):
        pairs = zip(model.state_dict().values(), loaded.state_dict().values(), strict=True)
        assert all(torch.equal(x, y) for x, y in pairs)


def test_the_same_seed_chooses_the_same_samples():
    chosen = choose_samples(540, 50, seed=1)
    assert chosen == choose_samples(540, 50, seed=1)
    assert chosen != choose_samples(540, 50, seed=2)
    assert len(set(chosen)) == 50
    assert sorted(choose_samples(7, None, seed=0)) == list(range(7))


@pytest.mark.parametrize("num_samples", [0, -1, 8])
def test_there_are_only_so_many_samples(num_samples):
    with pytest.raises(ValueError, match=f"from 1 to 7, all images there are, got {num_samples}"):
        choose_samples(7, num_samples, seed=0)


def test_a_folder_and_a_zip_file_number_their_classes_alike(tmp_path):
    archive = tmp_path / "images.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for name in ("10", "2", "with space"):
            (tmp_path / "images" / name).mkdir(parents=True)
            Image.new("RGB", (4, 4)).save(tmp_path / "images" / name / "a.png")
            file.write(tmp_path / "images" / name / "a.png", f"{name}/a.png")
    for data in (archive, tmp_path / "images"):
        assert class_names(open_images(str(data), "train")) == ["2", "10", "with space"]
    (tmp_path / "classes.txt").write_text("with space\n10\n2\n")
    for data in (archive, tmp_path / "images"):
        dataset = open_images(str(data), "train", class_map=tmp_path / "classes.txt")
        assert class_names(dataset) == ["with space", "10", "2"]
        assert sorted(label for _, label in dataset) == [0, 1, 2]


def test_a_forked_process_opens_the_zip_file_itself(archive, monkeypatch):
    reader = ZipReader(archive, "train")
    expected = reader[0][0].read()
    opened = reader._archive
    assert reader[1][0].read() != expected
    assert reader._archive is opened
    monkeypatch.setattr(os, "getpid", lambda: -1)
    assert reader[0][0].read() == expected
    assert reader._archive is not opened
