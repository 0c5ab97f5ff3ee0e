"""A study has a group for each analysis that the network allows, and says which it leaves out."""

import threading

import pytest
import timm
import torch
import xarray as xr
from helpers import models

import resnet_lesion as rl

FEW = {"n_deleted": [1], "n_swaps": [1], "n_draws": 1, "n_paths": 1, "show_progress": False}
LESIONS = ["deletion", "random_deletion"]
PATHS = ["path_gradient", "sampled_path_gradient", "effective_path"]


def test_every_group_is_what_its_analyzer_gives():
    model, data = models.build("resnetv2 basic"), models.data(3, "resnetv2 basic")
    tree = rl.study(model, data, **FEW)
    assert [*tree.children] == [*LESIONS, *PATHS, "block_statistics", "reorder"]
    alone = rl.Deletion(model).analyze(data, show_progress=False)
    xr.testing.assert_equal(tree["deletion"].to_dataset(), alone)
    statistics = rl.BlockStatistics(model).analyze(data, show_progress=False)
    xr.testing.assert_equal(tree["block_statistics"].to_dataset(), statistics)


@pytest.mark.parametrize(
    ("name", "groups", "why"),
    [
        ("cifar_vgg15", [*LESIONS, "reorder"], "no path gradients: .* has no skip: a plain network"),
        ("cspresnet50", [*LESIONS, "block_statistics", "reorder"], "no path gradients: expected blocks in a row"),
        ("resnet10t", [*LESIONS, *PATHS, "block_statistics"], "no reorderings: no two blocks"),
    ],
)
@pytest.mark.filterwarnings("ignore:lesions are run one by one")
def test_what_a_network_does_not_allow_is_left_out_with_a_warning(name, groups, why):
    model = models.randomised(timm.create_model(name, num_classes=4)).eval()
    data = torch.randn(2, 3, 32, 32), torch.tensor([0, 3])
    with pytest.warns(UserWarning, match=why):
        tree = rl.study(model, data, **FEW)
    assert [*tree.children] == groups
    with pytest.warns(UserWarning, match=why):
        shards = [rl.study(model, data, **FEW, shard=(i, 2)) for i in range(2)]
    merged = rl.merge(shards)
    assert set(merged.children) == set(groups)
    xr.testing.assert_equal(merged["deletion"].correct, tree["deletion"].correct)


def test_a_network_of_one_block():
    model, data = models.build("resnetv2 basic"), models.data(3, "resnetv2 basic")
    for stage in model.stages:
        stage.blocks = stage.blocks[:1]
    model.stages = model.stages[:1]
    model.norm, model.head.fc = torch.nn.Identity(), torch.nn.LazyLinear(10, dtype=torch.float64)
    model.num_classes = None
    model.num_classes = None
    with pytest.warns(UserWarning, match="no reorderings"):
        tree = rl.study(model, data, **{**FEW, "n_deleted": None})
    assert tree["random_deletion"].n_deleted.values.tolist() == [1]
    assert "reorder" not in tree.children


def test_shares_of_lesions_are_refused_before_anything_is_computed(monkeypatch):
    monkeypatch.setattr(rl.Deletion, "analyze", None)
    with pytest.raises(ValueError, match="expected a shard of the images only"):
        rl.study(models.build(), models.data(3), shard={"lesions": (0, 2)}, **FEW)


def test_no_other_thread_has_the_model_between_two_analyses(monkeypatch):
    model, data = models.build(), models.data(3)
    waiting = []

    class InBetween(rl.BlockStatistics):
        def __init__(self, network):
            other = threading.Thread(target=rl.wrap(model).verify, args=(data[0],), daemon=True)
            other.start()
            other.join(2)
            waiting.append(other)
            assert other.is_alive()
            super().__init__(network)

    monkeypatch.setattr("resnet_lesion.analyzers.study.BlockStatistics", InBetween)
    rl.study(model, data, **FEW)
    waiting[0].join(60)
    assert not waiting[0].is_alive()
