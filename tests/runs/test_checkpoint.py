"""What a pass keeps in its file, and that a file of another run, or a damaged one, is refused."""

import json
import os

import numpy as np
import pytest
import torch
import xarray as xr
from helpers import models
from helpers.analyses import ANALYSES, QUIET, Batches, Stop, check_identical

import resnet_lesion as rl
from resnet_lesion.results import storage
from resnet_lesion.results.provenance import origin
from resnet_lesion.runs.checkpoint import Checkpoint, Done, differences, fingerprint
from resnet_lesion.runs.run import Run


def test_totals_come_back_in_place_and_what_was_listed_as_one(tmp_path):
    parts = [torch.rand(2, 3, dtype=torch.float64), torch.rand(1, 3, dtype=torch.float64)]
    totals = {"sums": torch.rand(2, 4, dtype=torch.float64), "count": torch.tensor(7), "parts": parts, "none": []}
    done = Done(3, "digest")
    Checkpoint(tmp_path / "c.nc", {"model": "a"}).save(totals, done)
    sums, count, listed, none = torch.zeros(2, 4, dtype=torch.float64), torch.zeros((), dtype=torch.int64), [], [parts]
    found = {"sums": sums, "count": count, "parts": listed, "none": none}
    assert Checkpoint(tmp_path / "c.nc", {"model": "a"}).load(found) == done
    assert torch.equal(sums, totals["sums"])
    assert int(count) == 7
    assert len(listed) == 1
    assert torch.equal(listed[0], torch.cat(parts))
    assert none == []


def test_without_a_file_nothing_has_been_done(tmp_path):
    sums = torch.ones(2)
    assert Checkpoint(tmp_path / "c.nc", {}).load({"sums": sums}) == Done(0, "", complete=False)
    assert sums.tolist() == [1, 1]


def test_differences_are_named_by_their_place():
    a = {"same": 1, "model": "x", "versions": {"torch": "1", "timm": "2"}, "gone": 3}
    b = {"same": 1, "model": "y", "versions": {"torch": "4", "timm": "2"}, "new": None}
    assert differences(a, a) == ""
    assert differences(a, b) == "model was 'x' and is 'y'; versions.torch was '1' and is '4'; gone was 3 and is None"
    assert differences({"long": "x" * 99}, {"long": ""}) == f"long was '{'x' * 59} and is ''"


def test_a_fingerprint_is_what_changes_a_result():
    network, options = rl.wrap(models.build()), {"n_draws": 2, "perturbations_per_eval": 3, "memory_limit": None}
    attrs = origin(network, "A title", options)
    found = fingerprint(attrs)
    assert found == {
        **{name: attrs[name] for name in ("title", "model", "weights_sha256", "n_blocks", "dtype", "autocast")},
        "options": {"n_draws": 2},
        "versions": json.loads(attrs["versions"]),
    }
    acceleration = {"n_folded": 2, "channels_last": True, "compile": False, "rounding": 1e-7}
    accelerated = fingerprint({**attrs, "acceleration": json.dumps(acceleration)})
    del acceleration["rounding"]
    assert accelerated == {**found, "acceleration": acceleration}


def test_what_is_saved_is_on_the_way_to_the_result(tmp_path, always_saved):
    model, data = models.build(), models.data(9)
    with pytest.raises(Stop):
        rl.Deletion(model).analyze(Batches(data, 2, 3), checkpoint=tmp_path / "new" / "folder", **QUIET)
    state = rl.open(tmp_path / "new" / "folder" / "deletion.part.nc")
    some = rl.Deletion(model).analyze((data[0][:6], data[1][:6]), **QUIET)
    np.testing.assert_array_equal(state.correct_by_class.sum("correct_by_class_1")[1:], some.correct)
    assert json.loads(state.attrs["done"])["n_images"] == 6


def test_one_folder_holds_several_analyses(tmp_path):
    model, data = models.build(), models.data(4)
    for analyse in ANALYSES.values():
        analyse(model, data, checkpoint=tmp_path)
    names = {path.name.removeprefix("from-draw-0.").removesuffix(".part.nc") for path in tmp_path.iterdir()}
    assert names == set(ANALYSES)


def other_weights(model):
    with torch.no_grad():
        model.head.weight[0, 0] += 1
    return model


@pytest.mark.parametrize(
    ("model", "data", "options", "words"),
    [
        (other_weights(models.build()), models.data(9), {}, "weights_sha256 was"),
        (
            models.build(dtype=torch.float32),
            models.data(9),
            {},
            "weights_sha256 .*; dtype was 'float64' and is 'float32'",
        ),
        (models.build(), models.data(9), {"seed": 1}, "options.seed was 0 and is 1"),
        (models.build(), models.data(9), {"n_draws": 3}, "options.n_draws was 2 and is 3"),
        (models.build(), (models.images(9, seed=5), models.labels(9)), {}, "first_image was"),
        (models.build(), (models.images(9, (3, 8, 8)), models.labels(9)), {}, r"input_shape was \[3, 6, 6\]"),
    ],
)
def test_another_run_is_refused(tmp_path, always_saved, model, data, options, words):
    def analyse(model, data, n_draws=2, seed=0):
        batches = Batches(data, 2)
        return rl.Deletion(model).analyze(
            batches, n_deleted=[1, 2], n_draws=n_draws, seed=seed, checkpoint=tmp_path, **QUIET
        )

    expected = analyse(models.build(), models.data(9))
    with pytest.raises(
        ValueError, match=rf"random_deletion\.part\.nc' is of another run: {words}.* Delete it to start over"
    ):
        analyse(model, data, **options)
    check_identical(analyse(models.build(), models.data(9)), expected)  # nothing was lost


def test_data_that_has_grown_is_another_run(tmp_path):
    model, (inputs, targets) = models.build(), models.data(6)
    rl.Deletion(model).analyze((inputs[:4], targets[:4]), checkpoint=tmp_path, **QUIET)
    with pytest.raises(ValueError, match="is of another run: n_images was 4 and is 6"):
        rl.Deletion(model).analyze((inputs, targets), checkpoint=tmp_path, **QUIET)


def test_options_without_effect_may_change(tmp_path):
    model, data = models.build(), models.data(5)
    first = rl.Deletion(model).analyze(data, checkpoint=tmp_path, **QUIET)
    again = rl.Deletion(model).analyze(data, checkpoint=tmp_path, perturbations_per_eval=1, **QUIET)
    np.testing.assert_array_equal(again.correct, first.correct)


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    path = tmp_path / "result.nc"
    path.touch()
    with pytest.raises(NotADirectoryError, match=r"expected a folder as checkpoint, got the file .*result\.nc"):
        rl.Deletion(models.build()).analyze(models.data(2), checkpoint=path, **QUIET)


def test_a_damaged_file_is_refused(tmp_path):
    model, data = models.build(), models.data(4)
    rl.Deletion(model).analyze(data, checkpoint=tmp_path, **QUIET)
    path = tmp_path / "deletion.part.nc"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match=r"deletion\.part\.nc' cannot be read: .* Delete it to start over"):
        rl.Deletion(model).analyze(data, checkpoint=tmp_path, **QUIET)
    rl.save(xr.Dataset({"a": 1}), path)
    with pytest.raises(ValueError, match="cannot be read: 'fingerprint' Delete it"):
        rl.Deletion(model).analyze(data, checkpoint=tmp_path, **QUIET)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("fingerprint", "[]", r"expected a JSON object, got '\[\]'"),
        ("fingerprint", '{"rtol": Infinity}', "expected a JSON object, got '{\"rtol\": Infinity}'"),
        ("fingerprint", 3, "expected a JSON object, got '3'"),
        ("done", '"all"', "expected a JSON object, got"),
        ("done", '{"images": 3}', "unexpected keyword argument 'images'"),
        ("done", '{"n_images": 3}', "holds 4 images where it says 3"),
    ],
)
def test_an_attribute_that_says_nothing_is_refused(name, value, words, tmp_path):
    model, data, path = models.build(), models.data(4), tmp_path / "deletion.part.nc"
    rl.Deletion(model).analyze(data, checkpoint=tmp_path, **QUIET)
    rl.save(rl.open(path).assign_attrs({name: value}), path)
    with pytest.raises(ValueError, match=words):
        rl.Deletion(model).analyze(data, checkpoint=tmp_path, **QUIET)


@pytest.mark.parametrize(
    "change", [lambda it: it.isel(loss_0=[0]), lambda it: it.drop_vars("loss"), lambda it: it * 1.0]
)
def test_totals_of_another_shape_are_refused(change, tmp_path):
    """A single number would fit everywhere."""
    model, data, path = models.build(), models.data(4), tmp_path / "deletion.part.nc"
    rl.Deletion(model).analyze(data, checkpoint=tmp_path, **QUIET)
    state = rl.open(path)
    rl.save(change(state).assign_attrs(state.attrs), path)
    with pytest.raises(ValueError, match=r"deletion\.part\.nc' cannot be read: expected \w+ as torch\.\w+ \("):
        rl.Deletion(model).analyze(data, checkpoint=tmp_path, **QUIET)


def test_another_number_of_gradient_images_is_another_run(tmp_path):
    model, data = models.build(), models.data(8)
    how = {"n_deleted": 1, "n_swaps": 1, "n_draws": 1, "n_paths": 1, "checkpoint": tmp_path, **QUIET}
    rl.study(model, data, n_gradient_images=3, **how)
    with pytest.raises(ValueError, match=r"path_gradient\.part\.nc' is of another run: n_images was 3 and is 6"):
        rl.study(model, data, n_gradient_images=6, **how)
    other = data[0], (data[1] + 1) % models.N_CLASSES
    with pytest.raises(ValueError, match="is of another run: first_image was"):
        rl.study(model, data, gradient_data=other, n_gradient_images=3, **how)
    others = data[0], torch.cat([data[1][:1], other[1][1:]])
    with pytest.raises(ValueError, match="in which 3 images were done, got another one"):
        rl.study(model, data, gradient_data=others, n_gradient_images=3, **how)


def test_each_pass_is_known_by_what_it_computes(tmp_path):
    """How many paths follow in the second pass depends on the norms of the first, which may be another machine's."""
    run = Run(rl.wrap(models.build()), "anything", "What is tested", {}, checkpoint=tmp_path, show_progress=False)

    def count(paths):
        with run.pass_over(models.data(4), options={"paths_sha256": paths}) as pass_:
            for _ in pass_.batches({}, models.N_CLASSES):
                pass

    count("a")
    count("a")
    with pytest.raises(ValueError, match=r"is of another run: pass\.paths_sha256 was 'a' and is 'b'"):
        count("b")


def test_a_run_that_was_killed_at_the_very_end_is_finished(tmp_path, always_saved):
    model, data = models.build(), models.data(6)
    expected = rl.Deletion(model).analyze(Batches(data, 2), checkpoint=tmp_path, **QUIET)
    path = tmp_path / "deletion.part.nc"
    state = rl.open(path)
    done = json.loads(state.attrs["done"])
    rl.save(state.assign_attrs(done=json.dumps(done | {"complete": False})), path)
    left = tmp_path / f".deletion.part.nc.{'0' * 8}-1.abcd1234.part"
    left.touch()
    os.utime(left, (0, 0))
    check_identical(rl.Deletion(model).analyze(Batches(data, 2), checkpoint=tmp_path, **QUIET), expected)
    assert json.loads(rl.open(path).attrs["done"]) == done
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_failed_write_leaves_what_was_there(tmp_path, always_saved, monkeypatch):
    model, data = models.build(), models.data(9)
    expected = rl.Deletion(model).analyze(Batches(data, 2), **QUIET)
    written = []

    def save(dataset, path):
        written.append(path)
        if len(written) == 3:
            raise OSError(28, "No space left on device")
        storage.save(dataset, path)

    with monkeypatch.context() as patch:
        patch.setattr("resnet_lesion.runs.checkpoint.storage", type("Full", (), {"save": save, "open": storage.open}))
        with pytest.raises(OSError, match="No space left"):
            rl.Deletion(model).analyze(Batches(data, 2), checkpoint=tmp_path, **QUIET)
    assert json.loads(rl.open(tmp_path / "deletion.part.nc").attrs["done"])["n_images"] == 4
    check_identical(rl.Deletion(model).analyze(Batches(data, 2), checkpoint=tmp_path, **QUIET), expected)
