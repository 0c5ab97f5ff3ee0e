"""A new kind of result needs an entry in the places that CONTRIBUTING.md lists, and nowhere else."""

import importlib
import inspect
import re
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pytest
import xarray as xr
from helpers import synthetic

import resnet_lesion as rl
from resnet_lesion import plots
from resnet_lesion.cli.command import main
from resnet_lesion.plots.drawing import axes_or_new
from resnet_lesion.reports.findings import findings
from resnet_lesion.reports.tables import table_of
from resnet_lesion.results.kinds import kinds_of
from resnet_lesion.results.quantities import has
from resnet_lesion.results.variables import variable
from resnet_lesion.runs.shards import Shard

PAGE = Path(__file__).parents[2] / "CONTRIBUTING.md"
SECTION = re.search(r"^## A new kind of result\n(.*?)(?=^## |\Z)", PAGE.read_text(), re.MULTILINE | re.DOTALL)[1]
PLACES = re.findall(r"^- `(resnet_lesion/[\w/]+)\.py`, `([A-Z]+)`", SECTION, re.MULTILINE)


def foo_by_layer(dataset, ax=None):
    ax = axes_or_new(ax)
    ax.plot(dataset.foo.values)
    ax.set_title("All of foo", loc="left")
    return ax


def twice(dataset):
    return dataset.assign(twice=variable(("layer",), 2 * dataset.foo.values, "twice foo"))


# what Foo's author writes at each place
ENTRIES = {
    "KINDS": lambda dataset: has(dataset, "foo", "layer"),
    "FIGURES": (foo_by_layer,),
    "SENTENCES": lambda dataset: f"Foo: {int(dataset.foo.sum())} in all.",
    "TABLES": lambda dataset: [["layer", "how much foo"], ["all", str(int(dataset.foo.sum()))]],
    "FOLLOWING": twice,
}


def foo(values, **attrs):
    """What ``Foo.analyze`` returns."""
    found = synthetic.dataset({"total": ((), 2, "images"), "skipped": ((), 0, "images left out")}, {}, **attrs)
    found["foo"] = variable(("layer",), np.array(values), "foo", over_images="sum")
    return twice(found.assign_coords(layer=["layer1.0", "layer1.1"]))


@pytest.fixture
def added(monkeypatch):
    for path, name in PLACES:
        monkeypatch.setitem(getattr(importlib.import_module(path.replace("/", ".")), name), "foo", ENTRIES[name])


def test_the_places_are_those_where_something_is_written():
    assert [name for _, name in PLACES] == list(ENTRIES)


def test_public_names_stand_where_the_page_says():
    files = re.search(r"named in `([\w/.]+)` and `([\w/.]+)`", SECTION).groups()
    names = [name for name in rl.__all__ if not inspect.ismodule(getattr(rl, name))]  # those have pages of their own
    for text in ((PAGE.parent / file).read_text() for file in files):
        assert [name for name in names if not re.search(rf"\b{name}\b", text)] == []


def test_every_mapping_by_kinds_is_listed():
    kinds = importlib.import_module("resnet_lesion.results.kinds").KINDS
    package = Path(rl.__file__).parent
    found = set()
    for path in package.rglob("*.py"):
        module = ".".join(["resnet_lesion", *path.relative_to(package).with_suffix("").parts])
        for name in re.findall(r"^([A-Z_]+): dict\[str, .*= \{", path.read_text(), re.MULTILINE):
            if set(getattr(importlib.import_module(module), name)) <= set(kinds):
                found.add((module.replace(".", "/"), name))
    assert found == set(PLACES)


@pytest.mark.usefixtures("added")
def test_a_new_kind_is_seen_everywhere(tmp_path, capsys):
    result = foo([3, 4])
    assert kinds_of(result) == ("foo",)
    assert list(plots.available(result)) == list(plots.figures(result)) == ["foo_by_layer"]
    assert result.lesion.plot().get_title("left") == "All of foo"
    assert findings(result) == ["Foo: 7 in all."]
    assert table_of(result)[0] == ["layer", "how much foo"]

    rl.save(xr.DataTree.from_dict({"foo": result, "deletion": synthetic.deletion()}), tmp_path / "foo.nc")
    assert main(["show", str(tmp_path / "foo.nc")]) == 0
    shown = capsys.readouterr().out
    assert "how much foo" in shown
    assert "Foo: 7 in all." in shown
    assert main(["plot", str(tmp_path / "foo.nc"), "--out", str(tmp_path / "figures")]) == 0
    drawn = sorted(path.name for path in (tmp_path / "figures").iterdir())
    assert drawn == ["deletion-error_by_block.png", "foo-foo_by_layer.png"]
    assert main(["report", str(tmp_path / "foo.nc"), "--out", str(tmp_path / "foo.html")]) == 0
    page = (tmp_path / "foo.html").read_text()
    assert all(text in page for text in ("Foo: 7 in all.", "<th>how much foo</th>", 'alt="foo-foo_by_layer"'))


@pytest.mark.usefixtures("added")
def test_shards_of_a_new_kind_are_merged():
    more = {"fingerprint": '{"analysis": "foo"}', "created": "2026-01-01T00:00:00+00:00"}
    shards = [foo(values, shard=Shard((i, 2)).to_json(), **more) for i, values in enumerate(([3, 4], [10, 20]))]
    merged = rl.merge(shards)
    assert merged.foo.values.tolist() == [13, 24]
    assert merged.twice.values.tolist() == [26, 48]


def test_without_entries_it_is_a_dataset_like_any_other():
    result = foo([3, 4])
    assert kinds_of(result) == ()
    assert list(plots.available(result)) == ["foo", "twice"]
    assert findings(result) == []
    assert table_of(result)[0] == ["variable", "over", "what it is"]
