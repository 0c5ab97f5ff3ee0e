import json

import numpy as np
import pytest
import xarray as xr
from helpers import synthetic

import resnet_lesion as rl
from resnet_lesion.paper.comparison import compare
from resnet_lesion.reports.findings import findings
from resnet_lesion.reports.summary import as_json, summarise
from resnet_lesion.results.quantities import groups, percent
from resnet_lesion.runs.shards import Shard


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0, "0 %"),
        (0.0045, "0.45 %"),
        (0.0134, "1.3 %"),
        (0.0999, "10 %"),
        (0.815, "81.5 %"),
        (0.9996, "99.96 %"),
        (0.99999, "99.99 %"),
        (1, "100 %"),
    ],
)
def test_percent(share, text):
    assert percent(share) == text


def test_findings_of_a_study_are_computed():
    assert findings(synthetic.tree()) == [
        "One block deleted: the median error is 2 % (none deleted: 2 %, inside the 95 % interval of 10 of the 12 "
        "blocks); the worst is 50 %, without stages.0.blocks.0.",
        "Many blocks deleted: the mean error is 10 % with 1 block, 20 % with 2 blocks and 60 % with 6 blocks deleted; "
        "normalised area under the curve 0.35.",
        "Paths left with 6 blocks deleted: 50 % of those through 1 block and 0.11 % of those through 6 blocks.",
        "Blocks swapped: the mean error is 3 % at a mean Kendall's tau of 0.97, 15 % at a mean Kendall's tau of 0.85 "
        "and 60 % at a mean Kendall's tau of 0.40.",
        "Gradient of all paths of one length together: its norm is largest, 1, for paths through 0 blocks; all lengths "
        "together are the gradient, but for 1e-07 of it at most.",
        "Gradient along one path: with each block that the path passes its mean norm changes by a factor of 0.5, "
        "fitted over 0 to 12 blocks.",
        "Effective paths: 88 % of the gradient passes 2 to 6 blocks (61 % of the paths).",
    ]


def test_effective_paths_by_single_paths_and_by_sums():
    single = synthetic.effective_path()
    names = ("gradient_share", "effective_low", "effective_high")
    sums = single[["path_fraction", *names]].rename({name: f"sum_{name}" for name in names})
    text = "88 % of the gradient passes 2 to 6 blocks (61 % of the paths)"
    (line,) = findings(sums.assign(sum_effective_high=1, sum_effective_low=1))
    assert line == (
        "Effective paths: 4.6 % of the gradient passes 1 block (0.29 % of the paths), "
        "all paths of a length taken together."
    )
    (line,) = findings(single.merge(sums.assign(sum_effective_low=0, sum_effective_high=0)))
    assert line.startswith(f"Effective paths: {text}; with all paths of a length taken together, ")


def test_results_of_one_number_are_described_too():
    one = synthetic.random_deletion().isel(n_deleted=[1])
    assert findings(one)[0] == "Many blocks deleted: the mean error is 20 % with 2 blocks deleted."
    alone = synthetic.reorder().isel(n_swaps=[2])
    assert findings(alone) == ["Blocks swapped: the mean error is 60 % at a mean Kendall's tau of 0.40."]


def test_summary_says_where_a_result_came_from_once():
    text = summarise(synthetic.tree())
    assert text.startswith(
        "model     tiny.test\nweights   sha256 0123456789abcdef...\nblocks    12\ndata      100 images"
    )
    assert text.count("tiny.test") == 1
    other = synthetic.deletion().assign_attrs(data="7 images")
    text = summarise(xr.DataTree.from_dict({"a": synthetic.deletion(), "b": other}))
    assert "\n\ndata      7 images\n\nb - A synthetic result\n" in text
    assert text.count("tiny.test") == 1


def test_summary_of_a_study_has_its_numbers():
    lines = summarise(synthetic.tree()).splitlines()
    assert "  layer (the 6 worst of 12)  error   95 % interval   loss  agreement" in lines
    assert "  stages.0.blocks.0          0.500  0.404 to 0.596  1.000      0.500" in lines
    assert next(line.split() for line in lines if line.startswith("  6  "))[:2] == ["6", "0.600"]
    assert max(map(len, lines)) <= 120


def test_summary_of_whatever_is_there(tmp_path):
    stranger = xr.Dataset({"x": ("y", [1, 2], {"long_name": "some numbers"})})
    assert summarise(stranger) == "Dataset\n  variable  over  what it is\n  x         y     some numbers"
    assert summarise(xr.DataTree()) == "The result is empty: no group holds a variable."
    lesions = summarise(synthetic.evaluation()).splitlines()
    assert lesions[-1].split() == ["2", "0.900", "0.826", "to", "0.945", "1.800", "0.100"]
    rl.save(synthetic.tree(), tmp_path / "tree.nc")
    assert summarise(rl.open(tmp_path / "tree.nc")) == summarise(synthetic.tree())


def test_json_holds_everything():
    tree = synthetic.tree()
    read = json.loads(as_json(tree))
    assert set(read["groups"]) == {group for group, _ in groups(tree)}
    for group, dataset in groups(tree):
        written = read["groups"][group]
        assert written["attrs"]["versions"] == json.loads(dataset.attrs["versions"])
        for name, array in dataset.variables.items():
            values = written["coords" if name in dataset.coords else "data_vars"][name]["data"]
            expected = array.values.astype(object)
            if array.dtype.kind == "f":
                expected[~np.isfinite(array.values)] = None
            assert np.array_equal(np.array(values, dtype=object), expected)
    alone = json.loads(as_json(tree["deletion"].to_dataset()))
    assert alone["data_vars"]["error"] == read["groups"]["deletion"]["data_vars"]["error"]


def test_json_of_what_is_not_a_number():
    dataset = xr.Dataset({"x": ("y", [np.nan, np.inf, 1.0])}, attrs={"n": np.int64(3), "text": "[not JSON"})
    read = json.loads(as_json(dataset))
    assert read["data_vars"]["x"]["data"] == [None, None, 1.0]
    assert read["attrs"] == {"n": 3, "text": "[not JSON"}


def test_summary_of_a_comparison():
    right = [np.arange(100) < n for n in (98, 97, 99)], [np.arange(100) < n for n in (90, 91, 92)]
    text = summarise(compare(*right, ("whole", "part")))
    assert text.splitlines()[2].split() == ["0", "0.0200", "0.1000", "8", "0", "0.00781"]
    assert "whole errs 2 %, part errs 9 %: over 3 trainings of each p = " in text
    assert "whole errs 2 %, part errs 10 %: trained once each." in summarise(
        compare(*([some[0]] for some in right), ("whole", "part"))
    )


def test_a_gradient_of_one_length_decays_by_no_factor():
    dataset = synthetic.sampled_path_gradient()
    dead = dataset.where(dataset.path_length == 0, 0.0)
    assert findings(dead) == ["Gradient along one path: only paths through 0 blocks carry any."]
    assert findings(0 * dead) == ["Gradient along one path: no path carries any."]


def test_blocks_without_effect_are_called_so():
    dataset = synthetic.deletion()
    dead = dataset.assign(loss=dataset.error * 0 + 2.0, baseline_loss=2.0, agreement=dataset.error * 0 + 1.0)
    (sentence,) = findings(dead)
    assert sentence.endswith("No block changes any output, as where branches begin at zero: is the network trained?")
    (sentence,) = findings(dead.assign(loss=dead.loss + dataset.error))
    assert "No block" not in sentence


def test_a_shard_is_called_one():
    dataset = synthetic.deletion().assign_attrs(shard=Shard((1, 3)).to_json())
    assert "shard     1 of 3; resnet-lesion merge puts all together\n" in summarise(dataset)
