"""What version 0.1.0 wrote is opened, resumed and merged as if it had been written today.

A run is resumed, and shards are merged, only under the versions of the libraries that they began with. These tests
report the recorded versions; that all others are refused is one of them.
"""

import json
import re
import shutil
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
import torch
import xarray as xr
from helpers import models
from helpers.analyses import ANALYSES, QUIET, Batches, check_merged
from safetensors.torch import load_file

import resnet_lesion as rl
from resnet_lesion import plots
from resnet_lesion.reports.page import write_report
from resnet_lesion.reports.summary import summarise
from resnet_lesion.reports.tables import table_of
from resnet_lesion.results import provenance

ARCHIVE = Path(__file__).parents[1] / "files-0.1.0" / "files.zip"
RESULTS = ANALYSES | {
    "effective_path": lambda model, data: rl.EffectivePath(model).analyze(data, n_draws=4, n_bootstrap=10, **QUIET)
}
RECIPE = rl.Recipe(epochs=4, learning_rate=0.01)


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    """Give the folder of the old files; what writes to one of them has to copy it."""
    folder = tmp_path_factory.mktemp("files-0.1.0")
    with ZipFile(ARCHIVE) as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture(scope="module")
def subject(old):
    """Give the model and the data, to the last bit: another machine may draw and round them differently."""
    tensors = load_file(old / "subject.safetensors")
    data = tensors.pop("inputs"), tensors.pop("targets")
    model = models.build()
    model.load_state_dict(tensors)
    return model, data


@pytest.fixture
def versions(old, monkeypatch):
    """Report the versions under which the files were made; they can be changed."""
    recorded = json.loads(rl.open(old / "results" / "deletion.nc").attrs["versions"])
    monkeypatch.setattr(provenance, "_versions", lambda: json.dumps(recorded))
    return recorded


def check_same(old, today):
    """Equal in names, numbers and what they are; but how a variable is described may have become better English."""
    old, today = old.copy(), today.copy()
    for dataset in (old, today):
        for array in dataset.variables.values():
            array.attrs = {key: value for key, value in array.attrs.items() if key != "long_name"}
    # what the old version did not look at
    for dataset in (old, today):
        dataset.attrs.pop("proof", None)
        if "fingerprint" in dataset.attrs:
            known = json.loads(dataset.attrs["fingerprint"])
            dataset.attrs["fingerprint"] = {key: value for key, value in known.items() if key != "behaviour"}
    check_merged(old, today)


@pytest.mark.parametrize("name", RESULTS)
def test_a_result_is_what_is_computed_today(name, old, subject, versions):
    model, data = subject
    data = data if name == "effective_path" else Batches(data, 3)
    check_same(rl.open(old / "results" / f"{name}.nc"), RESULTS[name](model, data))


def test_a_study_is_what_is_computed_today(old, subject, versions):
    found = rl.open(old / "study.nc")
    today = rl.study(*subject, n_draws=3, n_paths=4, n_gradient_images=4, **QUIET)
    assert [*found.children] == [*today.children]
    for name, node in today.children.items():
        check_same(found[name].to_dataset(), node.to_dataset())


def test_a_study_is_drawn_told_and_tabled(old, tmp_path):
    study = rl.open(old / "study.nc")
    groups = {name: node.to_dataset() for name, node in study.children.items()}
    said = summarise(study)
    write_report(study, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    drawn = set(re.findall(r'<img [^>]*alt="([^"]*)"', page))
    assert drawn == {f"{name}-{figure}" for name, dataset in groups.items() for figure in plots.available(dataset)}
    for name, dataset in groups.items():
        assert plots.available(dataset)
        assert name in said
        assert all(cell in page for row in table_of(dataset) for cell in row)


@pytest.mark.parametrize("name", ANALYSES)
def test_a_run_that_was_stopped_is_resumed(name, old, subject, versions, tmp_path):
    model, data = subject
    part = {"sampled_path_gradient": f"from-draw-0.{name}"}.get(name, name)
    shutil.copy(old / "run" / f"{part}.part.nc", tmp_path)
    expected = ANALYSES[name](model, Batches(data, 3))
    seen = []
    handle = model.register_forward_pre_hook(lambda _module, args: seen.append(args[0].clone()))
    found = ANALYSES[name](model, Batches(data, 3), checkpoint=tmp_path)
    handle.remove()
    check_same(found, expected)
    # the first three to prove the network on, and only the last two of the eleven are done
    assert any(torch.equal(images[-1], data[0][-1]) for images in seen)
    assert not any((images == middle).flatten(1).all(1).any() for images in seen for middle in data[0][3:8])
    assert json.loads(rl.open(tmp_path / f"{part}.part.nc").attrs["done"])["complete"]


def test_under_other_versions_a_run_is_another_one(old, subject, versions, tmp_path):
    shutil.copy(old / "run" / "deletion.part.nc", tmp_path)
    versions["torch"] = "0.4.1"
    with pytest.raises(ValueError, match=r"of another run: versions\.torch was '.*' and is '0\.4\.1'"):
        rl.Deletion(subject[0]).analyze(Batches(subject[1], 3), checkpoint=tmp_path, **QUIET)


@pytest.mark.parametrize("name", ANALYSES)
def test_shards_are_merged(name, old, subject, versions):
    model, data = subject
    first, second = (old / "shards" / f"{name}-{i}.nc" for i in range(2))
    whole = ANALYSES[name](model, data)
    check_same(rl.merge([first, second]), whole)
    check_same(rl.merge([first, ANALYSES[name](model, data, shard=(1, 2))]), whole)


def test_a_training_that_was_stopped_is_resumed(old, subject, tmp_path):
    inputs, targets = subject[1]
    batches = [(inputs[:5], targets[:5]), (inputs[5:10], targets[5:10])]
    shutil.copy(old / "training.pt", tmp_path)
    state = torch.load(tmp_path / "training.pt", weights_only=True)
    assert state["epoch"] == 2
    resumed, whole = models.build(), models.build()
    whole.load_state_dict(subject[0].state_dict())
    found = rl.train(resumed, batches, RECIPE, checkpoint=tmp_path / "training.pt", **QUIET)
    expected = rl.train(whole, batches, RECIPE, **QUIET)
    xr.testing.assert_allclose(found, expected, rtol=1e-9)
    for name, tensor in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], tensor, rtol=1e-9, atol=1e-12)
    # the epochs before are those of the file, not computed again
    np.testing.assert_array_equal(found.train_loss[:2], state["curves"]["train_loss"])
