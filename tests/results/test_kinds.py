from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from helpers import models, synthetic

import resnet_lesion as rl
from resnet_lesion.paper.comparison import compare
from resnet_lesion.results.kinds import KINDS, kinds_of
from resnet_lesion.results.quantities import groups

RESULTS = Path(__file__).parents[2] / "docs" / "results"
QUIET = {"show_progress": False}
# the kinds of the groups of a study, of a reproduction, and of what stands alone
KINDS_OF = {
    "deletion": ("deletion", "lesion_sweep"),
    "random_deletion": ("random_deletion", "remaining_paths", "lesion_sweep"),
    "reorder": ("reorder", "lesion_sweep"),
    "evaluation": ("evaluation", "lesion_sweep"),
    "path_gradient": ("path_gradient",),
    "sampled_path_gradient": ("sampled_path_gradient",),
    "effective_path": ("effective_path", "path_lengths"),
    "block_statistics": ("block_statistics",),
    "training": ("training",),
    "comparison": ("comparison",),
    "claims": ("claims",),
}


@pytest.mark.parametrize("file", sorted(RESULTS.glob("*.nc")), ids=lambda file: file.stem)
def test_files_of_version_0_1_0_are_recognised(file):
    result = rl.open(file)
    for group, dataset in groups(result):
        name = "training" if group.startswith("training/") else group.rpartition("/")[2] or "deletion"
        assert kinds_of(dataset) == KINDS_OF[name], group


def test_every_kind_stands_in_those_files_but_an_evaluation():
    found = {
        kind for file in RESULTS.glob("*.nc") for _, dataset in groups(rl.open(file)) for kind in kinds_of(dataset)
    }
    assert set(KINDS) - found == {"evaluation"}


def test_what_the_analyzers_return_is_recognised():
    model, data = models.build(), models.data(4)
    tree = rl.study(model, data, n_deleted=[1, 2], n_swaps=[1], n_draws=2, n_paths=2, **QUIET)
    found = dict(groups(tree))
    found["evaluation"] = rl.evaluate(model, data, [[2, 1, 0, 3, 4, 5]], **QUIET)
    found["training"] = rl.train(model, [data], rl.Recipe(epochs=1), **QUIET)
    right = [np.arange(9) < 8, np.arange(9) < 7]
    found["comparison"] = compare(right, right)
    for name, dataset in found.items():
        assert kinds_of(dataset) == KINDS_OF[name], name
    assert set(KINDS_OF) - set(found) == {"claims"}


def test_shards_and_what_they_are_merged_to_are_of_the_same_kind():
    deletion, data = rl.Deletion(models.build()), models.data(4)
    shards = [deletion.analyze(data, n_deleted=[1, 2], n_draws=2, shard=(i, 2), **QUIET) for i in range(2)]
    assert {kinds_of(result) for result in (*shards, rl.merge(shards))} == {KINDS_OF["random_deletion"]}


def test_the_effective_range_of_exact_sums_alone_is_one():
    model, data = models.build(), models.data(4)
    assert kinds_of(rl.EffectivePath(model).analyze(data, method="exact", **QUIET)) == KINDS_OF["effective_path"]


def test_what_is_counted_without_a_network_is_recognised():
    assert kinds_of(rl.path_fraction(5).to_dataset(name="path_fraction")) == ("path_lengths",)
    left = rl.remaining_fraction(5, [1, 2]).to_dataset(name="remaining_fraction")
    assert kinds_of(left) == ("remaining_paths",)


def test_a_part_of_a_result_is_recognised():
    assert kinds_of(synthetic.deletion()[["error"]]) == ("deletion",)
    assert kinds_of(synthetic.random_deletion().isel(draw=0)[["error"]]) == ("random_deletion",)


def test_something_else_is_of_no_kind():
    assert kinds_of(xr.Dataset()) == ()
    # an error of what, over what?
    assert kinds_of(xr.Dataset({"error": ("epoch", [0.1]), "x": ("layer", [1])})) == ()


def test_two_results_in_one_dataset_are_of_both_kinds():
    both = synthetic.path_gradient().merge(synthetic.sampled_path_gradient(), compat="override")
    assert kinds_of(both) == ("sampled_path_gradient", "path_gradient")
