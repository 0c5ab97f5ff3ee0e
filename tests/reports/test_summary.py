import json

import numpy as np
import pytest
import xarray as xr
from helpers import synthetic

import resnet_lesion as rl
from resnet_lesion.paper.comparison import compare
from resnet_lesion.reports.summary import as_json, source_of, summarise
from resnet_lesion.results.quantities import groups
from resnet_lesion.runs.shards import Shard


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
    assert "Error rates: whole 2 %, part 9 %; over 3 trainings of each, p = " in text
    assert "Error rates: whole 2 %, part 10 %; trained once each." in summarise(
        compare(*([some[0]] for some in right), ("whole", "part"))
    )


def test_a_shard_is_called_one():
    dataset = synthetic.deletion().assign_attrs(shard=Shard((1, 3)).to_json())
    assert "shard     1 of 3; resnet-lesion merge puts all together\n" in summarise(dataset)


def test_summary_of_claims_has_three_lines_for_each():
    claim = {
        "figure": "6c",
        "statement": "Effective paths are short",
        "quantity": "longest effective path",
        "paper": 17.0,
        "ours": 13.0,
        "low": 12.0,
        "high": 14.25,
        "criterion": "it is below 27",
        "agrees": True,
    }
    unsure = claim | {"paper": np.nan, "low": np.nan, "high": np.nan, "agrees": False}
    claims = xr.Dataset({name: ("claim", [claim[name], unsure[name]]) for name in claim})
    assert summarise(claims).splitlines() == [
        "Dataset",
        "  6c        Effective paths are short: yes",
        "            longest effective path: 13 (12 to 14.25); the paper 17",
        "            yes if it is below 27",
        "  6c        Effective paths are short: NO",
        "            longest effective path: 13",
        "            yes if it is below 27",
    ]


def test_attributes_say_where_a_result_came_from():
    attrs = {
        "model": "tiny",
        "weights_sha256": "ab" * 32,
        "n_blocks": 12,
        "device": "cpu",
        "dtype": "float32",
        "autocast": "bfloat16",
        "versions": '{"torch": "2.6.0", "timm": "1.0"}',
        "title": "not said here",
    }
    assert source_of(attrs) == {
        "model": "tiny",
        "weights": "sha256 abababababababab...",
        "blocks": 12,
        "device": "cpu, float32, autocast to bfloat16",
        "versions": "torch 2.6.0, timm 1.0",
    }
    assert source_of({}) == {}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, "proof     deviations on the first images: blocks 2e-07, engine 0\n"),
        ({"stackable": False}, "engine 0; lesions were run one by one\n"),
        ({"stackable": False, "independent": False}, "engine 0; results depend on the batches\n"),
    ],
)
def test_what_the_network_showed_is_one_line(changed, said):
    proof = {"blocks": 2e-7, "alone": None, "engine": 0.0, "independent": True, "stackable": True, **changed}
    assert said in summarise(synthetic.deletion().assign_attrs(proof=json.dumps(proof)))
