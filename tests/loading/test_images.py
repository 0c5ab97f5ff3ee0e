import pytest
import timm
import torch
from helpers.image_files import write_images, zipped

from resnet_lesion.loading.images import ImageSet, Source, class_names
from resnet_lesion.loading.loaders import choose_samples

CPU = torch.device("cpu")


def test_a_class_map_chooses_and_orders_the_classes(archive, tmp_path):
    (tmp_path / "classes.txt").write_text("dog\ncat\n")
    dataset = ImageSet(str(archive), "train", class_map=tmp_path / "classes.txt").open()
    assert class_names(dataset) == ["dog", "cat"]
    assert [dataset[i][1] for i in range(6)] == [1, 1, 1, 0, 0, 0]
    (tmp_path / "classes.txt").write_text("dog\n")
    assert len(ImageSet(str(archive), "train", class_map=tmp_path / "classes.txt").open()) == 3


@pytest.mark.parametrize("kind", ["folder", "archive"])
def test_a_class_map_of_more_classes_is_right_but_a_misspelt_one_is_refused(kind, request, tmp_path):
    path, names = request.getfixturevalue(kind), tmp_path / "classes.txt"
    names.write_text("cow\ndog\ncat\n")
    assert [label for _, label in ImageSet(str(path), "train", class_map=names).open()] == [2, 2, 2, 1, 1, 1]
    names.write_text("dog\nkat\n")
    with pytest.raises(ValueError, match=r"got 'kat', which is not one, and no line for 'cat'\.$"):
        ImageSet(str(path), "train", class_map=names).open()


@pytest.mark.parametrize("as_zip", [False, True])
def test_splits_may_have_any_name(as_zip, tmp_path):
    path = write_images(tmp_path / "images", splits=("first", "second"))
    path = zipped(path, tmp_path / "images.zip") if as_zip else path
    assert str(ImageSet(str(path), "first")) == f"{path}, split first"
    source = Source(str(path), split="first", validation_split="second")
    assert (len(source.open()), str(source.validation)) == (6, f"{path}, split second")


def test_a_file_that_is_no_archive_is_refused_where_it_is_opened(tmp_path):
    (tmp_path / "images.txt").write_text("none")
    with pytest.raises(FileNotFoundError, match="expected data= as a folder or zip file"):
        _ = Source(str(tmp_path / "images.txt")).open()


@pytest.mark.parametrize("as_zip", [False, True])
def test_data_without_splits_are_described_without_and_not_trained_on(as_zip, tmp_path):
    path = write_images(tmp_path / "images", splits=("",))
    path = zipped(path, tmp_path / "images.zip") if as_zip else path
    assert str(ImageSet(str(path), "validation")) == str(path)
    with pytest.raises(ValueError, match=r"expected subfolders train and validation in .*, or validation_data="):
        Source(str(path))
    assert len(Source(str(path), validation_data=str(path)).open()) == 6


@pytest.mark.parametrize("data", ["nowhere", "nowhere.zip", "torchh/cifar10"])
def test_data_that_is_not_there(data):
    with pytest.raises(FileNotFoundError, match="expected data= as a folder or zip file"):
        ImageSet(data, "test").open()


def test_a_file_that_is_no_zip_file(tmp_path):
    (tmp_path / "x.zip").write_text("nothing")
    with pytest.raises(FileNotFoundError, match="zip file"):
        ImageSet(str(tmp_path / "x.zip"), "test").open()


def test_images_of_some_outputs_are_labelled_by_name(archive, tmp_path):
    (tmp_path / "outputs.txt").write_text("cow\ndog\nowl\ncat\n")
    dataset = ImageSet(str(archive), "train", classes=str(tmp_path / "outputs.txt")).open()
    assert [label for _, label in dataset] == [3, 3, 3, 1, 1, 1]
    assert class_names(dataset) == ["cow", "dog", "owl", "cat"]
    (tmp_path / "outputs.txt").write_text("cow\ndog\nowl\nkat\n")
    with pytest.raises(ValueError, match=r"one of the 4 outputs in classes='.*', got 'cat'\. Rename it"):
        ImageSet(str(archive), "train", classes=str(tmp_path / "outputs.txt")).open()


def test_errors_of_the_images_to_evaluate_on_name_its_parameters(folder, tmp_path):
    def evaluated(**options):
        Source(str(folder), **options).evaluation(timm.create_model("cifar_preactresnet38"), CPU)

    with pytest.raises(ValueError, match=r"^expected validation_split='train' or 'test' for the digits"):
        evaluated(validation_data="digits", validation_split="spare")
    with pytest.raises(FileNotFoundError, match=r"^expected validation_data= as a folder or zip file"):
        evaluated(validation_data=str(tmp_path / "data=none"))
    with pytest.raises(ValueError, match=rf"^data='{folder}': Found 0 images of validation_split='spare'"):
        evaluated(validation_split="spare")


def test_images_to_train_and_to_evaluate_on_have_the_same_classes(tmp_path):
    root = write_images(tmp_path / "images", splits=("train",), classes=("cat", "dog", "owl"))
    write_images(root, splits=("test",), classes=("cat", "owl"))
    write_images(root, splits=("val",), classes=("cat", "cow", "owl"))
    model = timm.create_model("cifar_preactresnet38")
    for split in ("test", "val"):
        source = Source(str(root), validation_split=split)
        with pytest.raises(ValueError, match=r"expected the 3 classes of .*, split train in .*, split (test|val) too"):
            source.evaluation(model, CPU)
    (tmp_path / "names.txt").write_text("cat\ndog\nowl\n")
    source = Source(str(root), class_map=tmp_path / "names.txt", validation_split="test")
    ((_, targets),) = source.evaluation(model, CPU)
    assert targets.tolist() == [0, 0, 0, 2, 2, 2]


def test_other_data_than_folders_number_their_classes_themselves(archive, tmp_path):
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    source = Source(str(archive), class_map=tmp_path / "names.txt", validation_data="digits")
    assert source.validation == ImageSet("digits")
    assert (
        Source(str(archive), class_map="names.txt", validation_data=str(tmp_path)).validation.class_map == "names.txt"
    )


def test_lesions_can_run_on_some_of_the_images(archive):
    model, source = timm.create_model("cifar_preactresnet38"), Source(str(archive))
    whole = torch.cat([x for x, _ in source.evaluation(model, CPU)])
    ((some, targets),) = source.evaluation(model, CPU, num_samples=4, seed=3)
    chosen = choose_samples(6, 4, seed=3)
    assert torch.equal(some, whole[chosen])
    assert targets.tolist() == [i // 3 for i in chosen]


def test_sources_know_their_classes(archive):
    assert Source(str(archive)).n_classes == 2
    assert Source("digits").n_classes == 10


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (ImageSet("digits", "spare"), "expected split='train' or 'test' for the digits, got 'spare'"),
        (ImageSet("digits", image_size=9), "the digits are not scaled: expected no image size, got 9"),
        (
            ImageSet("torch/cifar10"),
            r"data='torch/cifar10' needs data_dir=, where it is or \(with download=True\) should",
        ),
        (ImageSet("torch/cifar10", data_dir="."), r"^data='torch/cifar10': .* Pass download=True to get it\.$"),
        (
            ImageSet("torch/cifar10", data_dir=".", class_map="x.txt"),
            "class_map= with a folder or archive of images only: data='torch/cifar10' numbers its classes itself",
        ),
        (
            ImageSet("digits", classes="x.txt"),
            "expected classes= with a folder or archive of images only: data='digits'",
        ),
        (ImageSet("torch/zzz", data_dir="."), r"^data='torch/zzz': Unknown torchvision dataset zzz\.$"),
        (ImageSet("."), r"^data='\.': Found 0 images"),
    ],
)
def test_errors_name_the_parameter(images, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        images.open()


def test_a_source_is_the_training_images_and_knows_those_to_evaluate_on(folder):
    source = Source(str(folder), batch_size=3, image_size=8, validation_data="digits")
    assert str(source) == f"{folder}, split train, scaled to 8x8 pixels"
    assert source.validation == ImageSet("digits", "validation", batch_size=3, image_size=8)
    assert str(Source(str(folder)).validation) == f"{folder}, split validation"


def test_a_data_set_that_does_not_say_how_many_classes_it_has(monkeypatch, folder):
    monkeypatch.setattr("resnet_lesion.loading.images.class_names", lambda _: None)
    with pytest.raises(ValueError, match="does not say how many classes it has"):
        _ = ImageSet(str(folder)).n_classes
