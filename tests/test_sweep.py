"""Every network of timm's two ResNet files; minutes, so only with ``pytest -m sweep``."""

import pytest
import timm
import torch
from torch import nn

import resnet_lesion as rl
from resnet_lesion.testing import check_adapter

NAMES = [name for module in ("resnet", "resnetv2") for name in timm.list_models(module=module)]


def structure(network):
    """Tell networks apart by the modules that an adapter has to do with."""

    def classes(block, part):
        return tuple(type(module) for module in block.part(part).modules()) if isinstance(part, str) else part

    return frozenset(
        (
            type(block.module),
            *(classes(block, part) for part in (branch.exit, branch.shortcut, branch.preact, branch.post)),
            *(type(getattr(block.module, name, None)) for name in ("se", "aa", "drop_path")),
        )
        for block, branch in zip(network.blocks, network.branches, strict=True)
    )


@pytest.mark.sweep
def test_every_network_is_known_and_one_of_each_structure_is_checked():
    smallest = {}
    for name in NAMES:
        with torch.device("meta"):
            model = timm.create_model(name)
        size, key = sum(parameter.numel() for parameter in model.parameters()), structure(rl.wrap(model))
        smallest[key] = min(smallest.get(key, (size, name)), (size, name))
    assert len(NAMES) > 90
    assert len(smallest) > 20
    for _, name in smallest.values():
        model: nn.Module = timm.create_model(name, num_classes=10)
        assert check_adapter(model, torch.randn(1, 3, 64, 64)) < 1e-6, name
