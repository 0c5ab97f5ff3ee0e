"""Twelve images of two classes, as a folder and as a zip file."""

import pytest
from helpers.image_files import write_images, zipped


@pytest.fixture
def folder(tmp_path):
    return write_images(tmp_path / "images")


@pytest.fixture
def archive(folder, tmp_path):
    return zipped(folder, tmp_path / "images.zip")
