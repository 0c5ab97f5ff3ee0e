"""What the sweep does with one timm model; in a module of its own, so that its processes can import it."""

from __future__ import annotations

import timm
import torch

import resnet_lesion as rl
from resnet_lesion.testing import check_adapter

_SEE_SIGNATURE = ("se", "aa", "drop_path")


def in_the_name(name):
    """Tell whether the name says that it is a ResNet."""
    return "resne" in name


def missed_by_the_name(name):
    return (name.startswith(("res2net", "res2next")) or name in ("senet154", "legacy_senet154")) and "resne" not in name


def structure(name):
    """Return a model's number of parameters, and what tells its blocks from other models' as far as adapters go."""
    with torch.device("meta"):
        network = rl.wrap(timm.create_model(name))

    def classes(block, part):
        return ",".join(_class(module) for module in block.part(part).modules()) if isinstance(part, str) else str(part)

    blocks = {
        (
            _class(block.module),
            *(classes(block, part) for part in (branch.exit, branch.shortcut, branch.preact, branch.post)),
            *(_class(getattr(block.module, part, None)) for part in _SEE_SIGNATURE),
        )
        for block, branch in zip(network.blocks, network.branches, strict=True)
    }
    return sum(p.numel() for p in network.model.parameters()), tuple(sorted(blocks))


def deviation(name, drop_path_rate=0.0):
    """Prove every block of a model at full width, by value."""
    try:
        model = timm.create_model(name, drop_path_rate=drop_path_rate)
    except TypeError:  # it has no stochastic depth
        model = timm.create_model(name)
    cfg = model.pretrained_cfg
    any_size = (in_the_name(name) or missed_by_the_name(name)) and not cfg["fixed_input_size"]
    size = (3, 64, 64) if any_size else cfg["input_size"]
    return check_adapter(model, torch.randn(1, *size, generator=torch.Generator().manual_seed(0)))


def _class(module):
    return f"{type(module).__module__}.{type(module).__qualname__}"
