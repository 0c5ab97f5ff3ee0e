"""Twelve images of two classes, as a folder and as a zip file; no test changes them."""

import pytest
from helpers.image_files import write_images, zipped


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("images") / "images")


@pytest.fixture(scope="session")
def archive(folder):
    return zipped(folder, folder.parent / "images.zip")
