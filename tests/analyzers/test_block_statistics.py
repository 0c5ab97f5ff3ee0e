import numpy as np
import pytest
import torch
from helpers import reference_gradient as reference
from helpers.models import CASES, build, data, images, labels
from timm.models.resnet import BasicBlock
from timm.models.resnetv2 import PreActBasic, ResNetV2
from torch import nn
from torch.nn import functional as F

import resnet_lesion as rl

QUIET = {"show_progress": False}


def by_hand(model, x, objective):
    """Run the blocks one by one and compare, image by image."""
    x = x.clone().requires_grad_()
    x = model.stem(x) if isinstance(model, ResNetV2) else model.maxpool(model.act1(model.bn1(model.conv1(x))))
    parts = []
    for block in model.modules():
        if isinstance(block, BasicBlock | PreActBasic):
            skip, branch = reference._parts(block, x)
            added = skip + branch
            added.retain_grad()
            x = added if isinstance(model, ResNetV2) else F.relu(added)
            parts.append((skip, branch, x, added))
    objective(model.head(model.norm(x)) if isinstance(model, ResNetV2) else model.fc(x.mean((2, 3)))).backward()
    rows = []
    for skip, branch, y, added in parts:
        flat = [t.detach().flatten(1) for t in (skip, branch, y, -added.grad)]
        ratio = flat[1].norm(dim=1) / flat[0].norm(dim=1)
        cosines = [(a * b).sum(1) / a.norm(dim=1) / b.norm(dim=1) for a, b in ((flat[0], flat[2]), (flat[1], flat[3]))]
        rows.append([float(t.mean()) for t in (ratio, *cosines)])
    return np.array(rows).T


@pytest.mark.parametrize("name", reference.BUILD)
def test_statistics_by_hand(name):
    model, x, targets = reference.build(name), images(4, (3, 32, 32)), labels(4)
    parts = [(x[:3], targets[:3]), (x[3:], targets[3:])]
    names = ("branch_to_skip_ratio", "input_output_cosine", "update_gradient_cosine")
    for objective, loss in (
        ("cross_entropy", reference.cross_entropy(targets)),
        ("score", lambda logits: -reference.score(targets)(logits)),
    ):
        result = rl.BlockStatistics(model).analyze(parts, objective=objective, **QUIET)
        for variable, expected in zip(names, by_hand(model, x, loss), strict=True):
            np.testing.assert_allclose(result[variable], expected, rtol=1e-9)


@pytest.mark.parametrize("name", CASES)
def test_every_kind_of_block(name):
    model = build(name)
    result = rl.BlockStatistics(model).analyze(data(3, name), **QUIET)
    assert result.branch_to_skip_ratio.dims == ("layer",)
    assert (result.branch_to_skip_ratio > 0).all()
    assert (abs(result.input_output_cosine) <= 1 + 1e-12).all()


def test_frozen_weights_are_no_obstacle():
    model = build().requires_grad_(False)
    result = rl.BlockStatistics(model).analyze(data(), **QUIET)
    assert np.isfinite(result.update_gradient_cosine).all()
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert torch.is_grad_enabled()


class Weighted(nn.Module):
    """Its branch is scaled channel by channel, behind its exit."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.gamma = torch.tensor([2.0, -1.0, 0.25], dtype=torch.float64)[:, None, None]

    def forward(self, x):
        return x + self.gamma * self.conv(x)


@rl.register_adapter(Weighted)
def weighted(block):
    return rl.Branch(entry="conv", exit="conv", scale=lambda residual: block.gamma * residual)


def test_the_update_is_what_is_added():
    model = nn.Sequential(Weighted(), nn.Flatten(), nn.Linear(48, 3)).double()
    x, targets = images(4, (3, 4, 4)), labels(4) % 3
    result = rl.BlockStatistics(model).analyze((x, targets), **QUIET)
    with torch.no_grad():
        update = model[0].gamma * model[0].conv(x)
    total = (x + update).requires_grad_()
    F.cross_entropy(model[1:](total), targets, reduction="sum").backward()
    expected = torch.cosine_similarity(update.flatten(1), -total.grad.flatten(1), dim=1).mean()
    np.testing.assert_allclose(result.update_gradient_cosine, [float(expected)], rtol=1e-9)


def test_an_unknown_objective_is_refused():
    with pytest.raises(ValueError, match='expected objective "cross_entropy" or "score", got \'scroe\''):
        rl.BlockStatistics(build()).analyze(data(), objective="scroe", **QUIET)
