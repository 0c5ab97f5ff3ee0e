"""Nothing is downloaded; one thread is faster than two on networks this small; hypothesis tries the same every time."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before timm is imported

import pytest
import torch
from hypothesis import Phase, settings

from resnet_lesion.runs import run as run_module

torch.set_num_threads(1)
# without shrinking, which takes minutes here: the examples are small as they are
settings.register_profile(
    "tests", derandomize=True, deadline=None, database=None, max_examples=8, phases=(Phase.explicit, Phase.generate)
)
settings.load_profile("tests")


@pytest.fixture
def always_saved(monkeypatch):
    monkeypatch.setattr(run_module, "_SECONDS", 0.0)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip the sweep unless ``-m`` names it, and what needs an accelerator where there is none."""
    for item in items:
        if "sweep" in item.keywords and "sweep" not in config.option.markexpr:
            item.add_marker(pytest.mark.skip(reason="takes long; pytest -m sweep"))
        if "gpu" in item.keywords and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="no accelerator"))
