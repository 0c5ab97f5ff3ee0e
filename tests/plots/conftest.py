"""Figures need no display here, and are closed after each test."""

import matplotlib

matplotlib.use("Agg")

import pytest
from matplotlib import pyplot


@pytest.fixture(autouse=True)
def _close():
    yield
    pyplot.close("all")
