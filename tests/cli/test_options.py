import argparse
import dataclasses
import os
from pathlib import Path

import pytest
import torch

from resnet_lesion.cli import options
from resnet_lesion.loading.images import ImageSet, Source
from resnet_lesion.training.recipe import Recipe


def parsed(add, *words):
    parser = argparse.ArgumentParser(exit_on_error=False)
    add(parser)
    return parser.parse_args(["--data", "digits", *words])


def test_a_set_of_images_is_made_of_the_options_of_its_name(tmp_path):
    words = [
        "--data-dir",
        str(tmp_path),
        "--download",
        "--class-map",
        "c.txt",
        "--classes",
        "n.txt",
        "--image-size",
        "9",
        "--workers",
        "0",
    ]
    args = parsed(options.add_data_options, *words, "--skip-unreadable", "--batch-size", "3")
    images = options.from_options(ImageSet, args)
    assert dataclasses.replace(images, class_map=str(images.class_map)) == ImageSet(
        "digits", "validation", tmp_path, True, "c.txt", "n.txt", batch_size=3, image_size=9, skip_unreadable=True
    )


def test_every_field_of_a_source_is_an_option_with_the_same_default():
    args = parsed(options.add_source_options, "--workers", "0")
    assert {field.name for field in dataclasses.fields(Source)} <= vars(args).keys()
    assert options.from_options(Source, args) == Source("digits")
    other = parsed(options.add_source_options, "--validation-data", "x", "--validation-split", "y", "--split", "z")
    source = options.from_options(Source, other)
    assert (source.validation_data, source.validation_split, source.split) == ("x", "y", "z")


def test_fields_without_an_option_keep_their_default():
    recipe = options.from_options(Recipe, argparse.Namespace(epochs=7, autocast=True, colour="red"))
    assert recipe == Recipe(epochs=7, autocast=True)


@pytest.mark.parametrize(("read", "low"), [(options.positive, 1), (options.not_negative, 0)])
def test_whole_numbers(read, low):
    assert read(str(low)) == low
    for wrong in (str(low - 1), "1.5", "x", ""):
        with pytest.raises(argparse.ArgumentTypeError, match=f"^expected a whole number >= {low}, got '{wrong}'$"):
            read(wrong)
    assert read(str(2**63 - 1)) == 2**63 - 1
    with pytest.raises(
        argparse.ArgumentTypeError, match=r"^expected a whole number below 2\^63, got '9223372036854775808'$"
    ):
        read(str(2**63))


def test_devices():
    assert options.as_device("cpu") == torch.device("cpu")
    assert options.as_device(None).type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mps", "--device mps has no float64, in which results are added up"),
        ("tpu9", "expected --device as cpu, cuda or cuda:1, got 'tpu9'"),
        ("cuda:99", "--device cuda:99 cannot be used here"),
    ],
)
def test_devices_that_cannot_be_used(name, message):
    with pytest.raises(ValueError, match=message):
        options.as_device(name)


def test_paths():
    assert options.path("some/größer.nc") == Path("some/größer.nc")
    with pytest.raises(argparse.ArgumentTypeError, match=r"expected a path in UTF-8, got 'caf\\udce9.nc'"):
        options.path(os.fsdecode(b"caf\xe9.nc"))
