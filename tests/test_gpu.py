"""What the accelerator computes is what the CPU computes; skipped where there is none."""

import numpy as np
import pytest
import torch
import xarray as xr
from helpers import models
from helpers.analyses import ANALYSES, Batches, Stop, check_identical
from helpers.models import CASES, build, data

import resnet_lesion as rl
from resnet_lesion.runs.data import IGNORE_INDEX

pytestmark = pytest.mark.gpu
QUIET = {"show_progress": False}


@pytest.mark.parametrize("name", CASES)
def test_counts_and_gradients_agree_with_the_cpu(name):
    inputs, targets = data(9, name)
    model = build(name)
    expected = rl.Deletion(model).analyze((inputs, targets), **QUIET)
    gradient = rl.PathGradient(model).analyze((inputs, targets), **QUIET)
    sampled = rl.PathGradient(model).analyze((inputs, targets), method="sample", n_draws=3, **QUIET)
    model = build(name).cuda()
    result = rl.Deletion(model).analyze((inputs, targets), **QUIET)
    np.testing.assert_array_equal(result.correct, expected.correct)
    np.testing.assert_allclose(result.loss, expected.loss, rtol=1e-9)
    assert result.attrs["device"].startswith("cuda")
    on_device = inputs.cuda(), targets.cuda()
    np.testing.assert_allclose(
        rl.PathGradient(model).analyze(on_device, **QUIET).layer_gradient_norm, gradient.layer_gradient_norm, rtol=1e-8
    )
    other = rl.PathGradient(model).analyze(on_device, method="sample", n_draws=3, **QUIET)
    np.testing.assert_array_equal(other.path, sampled.path)
    np.testing.assert_allclose(other.gradient_norm, sampled.gradient_norm, rtol=1e-8)


@pytest.mark.parametrize("name", ANALYSES)
def test_a_run_goes_on_and_is_merged_on_the_device(name, tmp_path, always_saved, monkeypatch):
    # cuDNN's fastest convolutions add up gradients in any order, so that two runs differ in the last bit
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    analyse, model, (inputs, targets) = ANALYSES[name], models.build().cuda(), models.data(11)
    targets[4] = IGNORE_INDEX
    on_device = inputs.cuda(), targets.cuda()
    expected = analyse(model, Batches(on_device, 3))
    assert (int(expected.total), int(expected.skipped)) == (10, 1)
    with pytest.raises(Stop):
        analyse(model, Batches(on_device, 3, stop_after=2), checkpoint=tmp_path)
    check_identical(analyse(model, Batches(on_device, 3), checkpoint=tmp_path), expected)
    merged = rl.merge([analyse(model, Batches(on_device, 3), shard=(i, 3)) for i in range(3)])
    xr.testing.assert_allclose(merged, expected, rtol=1e-9)


@pytest.mark.filterwarnings("ignore:Synchronization debug mode")  # a prototype, as torch warns
def test_nothing_waits_for_the_device():
    """An asynchronous copy or launch may be waiting at any time: a synchronisation in the loop would raise."""
    model = models.build(dtype=torch.float32).cuda()
    inputs, targets = (part.cuda() for part in models.data(32, dtype=torch.float32))
    deletion, seen = rl.Deletion(model), []

    def batches():
        for i in range(4):
            if i == 1:  # the first one learns shapes
                torch.cuda.set_sync_debug_mode("error")
            seen.append(i)
            yield inputs, targets
        torch.cuda.set_sync_debug_mode("default")

    try:
        deletion.analyze(batches(), **QUIET)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert seen == [0, 1, 2, 3]


def test_defects_on_the_device_are_found_in_the_end():
    inputs, targets = data(4)
    model = build().cuda()
    with pytest.raises(ValueError, match="labels from 0 to 4"):
        rl.Deletion(model).analyze((inputs.cuda(), targets.cuda() + 5), **QUIET)
    with pytest.raises(ValueError, match="finite"):
        rl.Deletion(model).analyze((inputs.cuda() * float("nan"), targets.cuda()), **QUIET)


def test_out_of_memory_halves_the_images():
    inputs, targets = data(64, dtype=torch.float32)
    model = build(dtype=torch.float32).cuda()
    expected = rl.Deletion(model).analyze((inputs, targets), **QUIET)
    first = rl.wrap(model).blocks[1].module

    def refuse(_module, args):
        if len(args[0]) > 40:
            raise torch.OutOfMemoryError

    handle = first.conv1.register_forward_pre_hook(refuse)
    result = rl.Deletion(model).analyze((inputs, targets), **QUIET)
    handle.remove()
    np.testing.assert_array_equal(result.correct, expected.correct)
