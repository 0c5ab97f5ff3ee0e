import pytest
import torch
from helpers import models
from torch import nn

import resnet_lesion as rl


def test_a_branch_cannot_be_changed():
    with pytest.raises(AttributeError):
        rl.wrap(models.build()).branches[0].exit = "conv1"


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        (
            {"entry": nn.Identity(), "exit": "b"},
            r"expected Branch\(entry=...\) as the name of a submodule, got Identity",
        ),
        ({"entry": ("a", 1), "exit": "b"}, r"expected Branch\(entry=...\) as the name of a submodule, got 1"),
        ({"entry": "a", "exit": None}, r"expected Branch\(exit=...\) as the name of a submodule, got None"),
        (
            {"entry": "a", "exit": "b", "scale": torch.ones(1)},
            r"Branch\(scale=...\) as a number, the name .* got Tensor",
        ),
        ({"entry": "a", "exit": "b", "post": 1.0}, r"Branch\(post=...\) as the name of a submodule, a function"),
    ],
)
def test_parts_of_the_wrong_kind_are_refused(parts, words):
    with pytest.raises(TypeError, match=words):
        rl.Branch(**parts)
