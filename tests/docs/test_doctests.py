import doctest
import importlib
import pkgutil

import pytest

import resnet_lesion
import resnet_lesion_timm

MODULES = [
    name
    for package in (resnet_lesion, resnet_lesion_timm)
    for _, name, _ in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    if not name.endswith("__main__")
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_are_right_as_they_stand(name):
    # nothing is there before, as where one is pasted from help()
    assert doctest.testmod(importlib.import_module(name), globs={}).failed == 0


def test_every_analyzer_has_an_example():
    for name in (
        "analyzers.deletion",
        "analyzers.reorder",
        "analyzers.evaluation",
        "network.residual_network",
        "blocks.branch",
        "network.paths",
    ):
        module = importlib.import_module(f"resnet_lesion.{name}")
        assert any(test.examples for test in doctest.DocTestFinder().find(module)), name
