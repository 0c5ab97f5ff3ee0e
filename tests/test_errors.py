from pathlib import Path

import pytest
from torch import nn

import resnet_lesion as rl
from resnet_lesion.errors import HOW_TO


def test_who_catches_the_usual_errors_catches_ours():
    assert issubclass(rl.AdapterError, RuntimeError)
    assert issubclass(rl.PathsError, ValueError)


def test_the_page_that_errors_point_to_is_there_and_says_how():
    page = Path(__file__).parents[1] / HOW_TO
    assert "register_adapter" in page.read_text()
    with pytest.raises(TypeError, match=f"see {HOW_TO}"):
        rl.find_branch(nn.Linear(1, 1))
