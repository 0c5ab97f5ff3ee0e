"""What the sweep does with one timm model; in a module of its own, so that its processes can import it."""

from __future__ import annotations

import timm
import torch

import resnet_lesion as rl
from resnet_lesion.testing import check_adapter


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
        return _class(part) if not isinstance(part, str) else ",".join(map(_class, block.part(part).modules()))

    blocks = {
        (
            _class(block.module),
            *(classes(block, part) for part in (branch.exit, branch.shortcut, branch.preact, branch.post)),
            *(f"{name}: {_class(child)}" for name, child in block.module.named_children()),
        )
        for block, branch in zip(network.blocks, network.branches, strict=True)
    }
    return sum(p.numel() for p in network.model.parameters()), tuple(sorted(blocks))


def n_parameters(name):
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in timm.create_model(name).parameters())


def deviation(name, drop_path_rate=0.0):
    """Prove every block of a model at full width, by value; return its deviation, or what went wrong."""
    try:
        model = timm.create_model(name, drop_path_rate=drop_path_rate)
    except TypeError:  # it has no stochastic depth
        model = timm.create_model(name)
    inputs = torch.randn(1, *_input_size(name, model.pretrained_cfg), generator=torch.Generator().manual_seed(0))
    try:
        return check_adapter(model, inputs)
    except Exception as error:  # so that one model's failure does not hide the others'
        return f"{type(error).__name__}: {error}"


def failures(names, deviations):
    """Return the names whose blocks are not what their adapter says."""
    pairs = zip(names, deviations, strict=True)
    return {name: value for name, value in pairs if not (isinstance(value, float) and value < 1e-6)}


def _input_size(name, cfg):
    if cfg["fixed_input_size"]:
        return cfg["input_size"]
    if not (in_the_name(name) or missed_by_the_name(name)):
        return tuple(min(length, 224) for length in cfg["input_size"])
    # Inception pools without padding; bilinear attention needs its images to fall into eight by eight parts
    pixels = 96 if "inception" in name else 256 if name.startswith("bat_") else 64
    return (3, pixels, pixels)


def _class(part):
    return f"{type(part).__module__}.{type(part).__qualname__}"
