"""Nothing is downloaded; one thread is faster than two on networks this small; hypothesis tries the same every time."""

import os

# before torch and timm are imported, here and in the processes that tests start
os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}

import pytest
import torch.distributed as dist
from hypothesis import Phase, settings

# without shrinking, which takes minutes here: the examples are small as they are
settings.register_profile(
    "tests", derandomize=True, deadline=None, database=None, max_examples=8, phases=(Phase.explicit, Phase.generate)
)
settings.load_profile("tests")


@pytest.fixture
def always_saved(monkeypatch):
    monkeypatch.setattr("resnet_lesion.runs.run._SECONDS", 0.0)


@pytest.fixture
def impatient(monkeypatch):
    """End a loader's processes at once; torch waits 5 s for each that an error has left to the garbage collector."""
    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.1)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip the sweep unless ``-m`` names it, and what needs an accelerator where there is none."""
    import torch  # not at the top: the process that only hands out tests to others starts at once without it

    for item in items:
        if "sweep" in item.keywords and "sweep" not in config.option.markexpr:
            item.add_marker(pytest.mark.skip(reason="takes long; pytest -m sweep"))
        if "gpu" in item.keywords and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="no accelerator"))


@pytest.fixture
def process_group():
    """Let this process be a group of its own, as FSDP and sharded tensors need."""
    if not dist.is_available():
        pytest.skip("this torch has no distributed package")
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()
