"""What a run keeps on disk, and that it resumes where it was stopped."""

import copy
import json
import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from helpers import models
from helpers.analyses import ANALYSES, QUIET, Batches, Stop, check_identical
from torch import nn

import resnet_lesion as rl
from resnet_lesion.results.provenance import image_digest
from resnet_lesion.runs.data import IGNORE_INDEX
from resnet_lesion.runs.run import Run


@pytest.mark.parametrize("name", ANALYSES)
@pytest.mark.parametrize("stop_after", [1, 3])
def test_a_stopped_run_goes_on(name, stop_after, tmp_path, always_saved):
    analyse, model, data, calls = ANALYSES[name], models.build(), models.data(11), []
    handle = model.register_forward_pre_hook(lambda _module, args: calls.append(len(args[0])))
    expected = analyse(model, Batches(data, 3))
    with pytest.raises(Stop):
        analyse(model, Batches(data, 3, stop_after), checkpoint=tmp_path)
    calls.clear()
    check_identical(analyse(model, Batches(data, 3), checkpoint=tmp_path), expected)
    # a batch is known to be done once the next one is asked for
    whole_again = [*calls]
    calls.clear()
    analyse(model, Batches(data, 3))
    assert sum(whole_again) < sum(calls)
    calls.clear()
    check_identical(analyse(model, Batches(data, 3), checkpoint=tmp_path), expected)
    handle.remove()
    gradients = [1, 1] if "path_gradient" in name else []  # an ordinary one, and all paths' together
    assert calls == [5, 1, 3, *gradients], "what is complete is not computed again, only proved"
    assert [path.suffix for path in tmp_path.iterdir()] == [".nc"]


@pytest.mark.parametrize("name", ANALYSES)
def test_a_run_whose_folder_is_deleted_in_between_goes_on(name, tmp_path, always_saved):
    analyse, model, data = ANALYSES[name], models.build(), models.data(11)
    folder = tmp_path / "run"

    class Deleting(Batches):
        def __iter__(self):
            for batch in super().__iter__():
                shutil.rmtree(folder, ignore_errors=True)
                yield batch

    expected = analyse(model, Deleting(data, 3))
    check_identical(analyse(model, Deleting(data, 3), checkpoint=folder), expected)


def test_a_run_with_rtol_goes_on_in_any_of_its_passes(tmp_path, always_saved, monkeypatch):
    monkeypatch.setattr("resnet_lesion.analyzers.gradient_norms._FIRST_ROUND", 2)
    model, data = models.build(), models.data(6)

    def analyse(batches, **how):
        gradient = rl.PathGradient(model)
        return gradient.analyze(batches, method="sample", n_draws=16, rtol=0.02, **how, **QUIET)

    expected = analyse(Batches(data, 2))
    assert len(set(expected.n_draws.values.tolist())) > 1

    class StopInSecondPass(Batches):
        def __iter__(self):
            self.stop_after = 1 if self.n_asked else None
            return super().__iter__()

    with pytest.raises(Stop):
        analyse(StopInSecondPass(data, 2), checkpoint=tmp_path)
    assert len([*tmp_path.iterdir()]) == 2
    check_identical(analyse(Batches(data, 2), checkpoint=tmp_path), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_images_of_half_precision(dtype, tmp_path):
    inputs, targets = models.data(4)
    result = rl.Deletion(models.build()).analyze((inputs.to(dtype), targets), checkpoint=tmp_path, **QUIET)
    assert int(result.total) == 4


def test_data_in_another_order_is_refused(tmp_path, always_saved):
    model, (inputs, targets) = models.build(), models.data(8)
    with pytest.raises(Stop):
        rl.Deletion(model).analyze(Batches((inputs, targets), 2, 2), checkpoint=tmp_path, **QUIET)
    shuffled = inputs[[0, 3, 2, 1, *range(4, 8)]], targets
    with pytest.raises(ValueError, match="in the order in which 4 images were done, got another one"):
        rl.Deletion(model).analyze(Batches(shuffled, 2), checkpoint=tmp_path, **QUIET)
    shorter = Batches((inputs[:1], targets[:1]), 2)
    with pytest.raises(ValueError, match="in which 4 images were done, got fewer images"):
        rl.Deletion(model).analyze(shorter, checkpoint=tmp_path, **QUIET)


@pytest.mark.parametrize(("trials", "midway"), [(3, 1), pytest.param(20, 5, marks=pytest.mark.sweep)])
def test_killed_at_random_points_it_goes_on(tmp_path, trials, midway):
    """So many runs, each killed by SIGKILL at a random point and started again: every time the same Dataset."""
    script = Path(__file__).parents[1] / "helpers" / "kill_and_resume.py"
    result = subprocess.run(
        [sys.executable, str(script), str(tmp_path), str(trials)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    killed = json.loads(result.stdout)
    assert [trial["identical"] for trial in killed] == [True] * trials
    assert sum(trial["done"] > 0 for trial in killed) >= midway, "most should be killed when something had been done"


@pytest.mark.parametrize("name", ANALYSES)
def test_images_that_are_left_out_change_nothing(name):
    analyse, model, (inputs, targets) = ANALYSES[name], models.build(), models.data(8)
    expected = analyse(model, (inputs, targets))
    more_inputs = torch.cat([inputs[:3], torch.zeros(2, 3, 6, 6, dtype=torch.float64), inputs[3:]])
    more_targets = torch.cat([targets[:3], torch.full((2,), IGNORE_INDEX), targets[3:]])
    found = analyse(model, [(more_inputs, more_targets)])
    assert (int(found.total), int(found.skipped)) == (8, 2)
    assert (int(expected.total), int(expected.skipped)) == (8, 0)
    if "sample" in found.dims:
        assert found.sample_sum_gradient_norm.isel(sample=[3, 4]).isnull().all()
        found = found.isel(sample=[0, 1, 2, *range(5, 10)]).assign_coords(sample=range(8))
    xr.testing.assert_allclose(found.drop_vars("skipped"), expected.drop_vars("skipped"), rtol=1e-12, atol=1e-14)
    if "correct" in found:
        np.testing.assert_array_equal(found.correct, expected.correct)
        np.testing.assert_array_equal(found.agreeing, expected.agreeing)


def test_the_score_of_images_that_are_left_out(tmp_path):
    model, (inputs, targets) = models.build(), models.data(4)
    expected = rl.PathGradient(model).analyze((inputs, targets), objective="score", **QUIET)
    data = torch.cat([inputs, inputs[:1]]), torch.cat([targets, torch.tensor([IGNORE_INDEX])])
    found = rl.PathGradient(model).analyze(data, objective="score", **QUIET)
    np.testing.assert_allclose(found.sum_gradient_norm, expected.sum_gradient_norm, rtol=1e-12)


def test_no_image_to_count():
    inputs, _ = models.data(3)
    with pytest.raises(ValueError, match="got none: 3 are left out, as their label is -100"):
        rl.Deletion(models.build()).analyze((inputs, torch.full((3,), IGNORE_INDEX)), **QUIET)
    with pytest.raises(
        ValueError, match="expected images in shard 3 of 4, got none: this part of the run has fewer images"
    ):
        rl.Deletion(models.build()).analyze(models.data(3), shard=(3, 4), **QUIET)


def test_a_pass_says_what_it_has_seen_and_leaves_the_run_alone():
    network, (inputs, targets) = rl.wrap(models.build()), models.data(5)
    run = Run(network, "anything", "What is tested", {}, show_progress=False)
    before = {**run.fingerprint}
    found = []
    for labels in (targets, torch.tensor([0, IGNORE_INDEX, 1, 2, IGNORE_INDEX])):
        with run.pass_over((inputs, labels)) as pass_:
            batches = pass_.batches({}, models.N_CLASSES)
            next(batches)
            assert not hasattr(pass_, "seen"), "not before all of it has been seen"
            assert not [*batches]
        found.append(pass_.seen)
    assert [(seen.total, seen.skipped, seen.data) for seen in found] == [
        (5, 0, "5 images of shape 3x6x6 from tuple"),
        (3, 2, "3 images of shape 3x6x6 from tuple"),
    ]
    assert found[0].fingerprint == before | {
        "input_shape": [3, 6, 6],
        "first_image": found[0].fingerprint["first_image"],
        "behaviour": pass_.proof.behaviour,
    }
    assert found[0].fingerprint["first_image"] == image_digest(inputs[:1], targets[:1])
    assert run.fingerprint == before
    first, second = (run.finish(xr.Dataset(), seen) for seen in found)
    assert (int(first.total), int(second.total), int(second.skipped)) == (5, 3, 2)
    assert json.loads(first.attrs["fingerprint"]) == found[0].fingerprint


def test_progress_counts_a_shards_images(capsys):
    rl.Deletion(models.build()).analyze(models.data(10), shard=(1, 3))
    assert "3/3" in capsys.readouterr().err


def scaled(model):
    model.stage1[1].register_forward_hook(lambda _module, _args, y: 1.01 * y)


def observed(model):
    model.stage1[1].register_forward_hook(lambda _module, _args, _y: None)


def lesioned(model):
    stack = ExitStack()
    stack.enter_context(rl.wrap(model).lesioned(delete=[2]))
    model.opened = stack.pop_all  # kept alive


def other_activation(model):
    for module in model.modules():
        if isinstance(module, nn.ReLU):
            module.forward = nn.functional.gelu


def other_eps(model):
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 0.1


def other_stride(model):
    model.stem.stride = (2, 2)


def other_buffer(model):
    """One that is not in the state dict."""
    model.factor *= 1.2


def adapter_disabled(model):
    model.adapter_is_on = False


def head_rounded(model):
    """As by a quantisation that keeps the weights for later."""
    weight = (model.head.weight * 16).round() / 16
    model.head.forward = lambda x: nn.functional.linear(x, weight, model.head.bias)


class Adapted(nn.Module):
    """A network with what its state dict does not tell."""

    def __init__(self):
        super().__init__()
        self.add_module("net", models.build())
        self.stem, self.stage1, self.head = self.net.stem, self.net.stage1, self.net.head
        self.adapter_is_on = True
        self.register_buffer("factor", torch.ones(5, dtype=torch.float64), persistent=False)

    def forward(self, x):
        y = self.net(x) * self.factor
        return y + 0.1 * y.flip(1) if self.adapter_is_on else y


CHANGES = [
    (scaled, "outputs for the first image are others"),
    (observed, r"hooks, or a replaced forward, came or went on 'net\.stage1\.1'\."),
    (lesioned, "outputs for the first image are others"),
    (other_activation, "outputs for the first image are others"),
    (other_eps, "outputs for the first image are others"),
    (other_stride, "outputs for the first image are others"),
    (other_buffer, "outputs for the first image are others"),
    (adapter_disabled, "outputs for the first image are others"),
    (head_rounded, "outputs for the first image are others"),
]


@pytest.mark.parametrize(("change", "words"), CHANGES)
def test_a_network_that_does_something_else_is_another_run(change, words, tmp_path, always_saved):
    deletion, data = rl.Deletion(Adapted()), models.data(6)
    result = deletion.analyze(data, checkpoint=tmp_path, **QUIET)
    first = deletion.analyze(data, shard=(0, 2), **QUIET)
    again = rl.Deletion(copy.deepcopy(deletion.network.model)).analyze(data, checkpoint=tmp_path, **QUIET)
    xr.testing.assert_equal(again, result)
    change(deletion.network.model)
    second = deletion.analyze(data, shard=(1, 2), **QUIET)
    assert first.attrs["weights_sha256"] == second.attrs["weights_sha256"]
    with pytest.raises(ValueError, match=words):
        deletion.analyze(data, checkpoint=tmp_path, **QUIET)
    with pytest.raises(ValueError, match=words):
        rl.merge([first, second])
