from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest
import torch
import xarray as xr
from captum.attr import NoiseTunnel, Saliency
from captum.attr import visualization as viz
from helpers import reference_gradient as reference
from helpers.living import tensors_after
from helpers.models import Snapshot, build, data, images
from helpers.reference_gradient import norm, of_length

import resnet_lesion as rl

QUIET = {"show_progress": False}


def close(a, b, tolerance=1e-12):
    return float((a - b).abs().max()) <= tolerance * float(b.abs().max())


@pytest.mark.parametrize("name", reference.BUILD)
def test_attribute_of_each_length_equals_enumeration_and_all_of_them_saliency(name):
    model, (x, targets) = reference.build(name), reference.data()
    gradients = reference.enumerated(name, "score")
    algorithm = rl.PathGradient(model)
    for k in range(9):
        assert close(algorithm.attribute(x, target=targets, path_length=k), of_length(gradients, k))
    some = algorithm.attribute(x, target=targets, path_length=[2, 5])
    assert close(some, of_length(gradients, 2) + of_length(gradients, 5))
    saliency = Saliency(model).attribute(x.clone().requires_grad_(), target=targets, abs=False)
    whole, delta = algorithm.attribute(x, target=targets, return_convergence_delta=True)
    assert close(whole, saliency)
    assert float(delta.max()) < 1e-12
    part = algorithm.compute_convergence_delta(some, x, target=targets)
    torch.testing.assert_close(part, norm(some - saliency) / norm(saliency))
    single = rl.PathGradient(reference.build(name, torch.float32)).attribute(x.float(), target=targets)
    assert single.dtype == torch.float32
    assert close(single.double(), saliency, 1e-5)


@pytest.mark.parametrize("name", reference.BUILD)
def test_attribute_at_a_block_equals_enumeration(name):
    model, (x, targets) = reference.build(name), reference.data(2)
    gradients = reference.all_path_gradients(model, x, reference.score(targets), wrt=5)
    found = rl.PathGradient(model).attribute(x, targets, path_length=2, wrt=rl.wrap(model).layers[5])
    assert close(found, of_length(gradients, 2))


def test_inside_noise_tunnel_and_visualization():
    algorithm, x = rl.PathGradient(build()), images(2)
    tunnel = NoiseTunnel(algorithm)
    smooth = tunnel.attribute(x, nt_samples=3, stdevs=1e-9, target=1, path_length=[0, 1])
    assert close(smooth, algorithm.attribute(x, target=1, path_length=[0, 1]), 1e-5)
    figure, _ = viz.visualize_image_attr(
        smooth[0].permute(1, 2, 0).numpy(), sign="absolute_value", use_pyplot=False, show_colorbar=False
    )
    assert figure.axes


@pytest.mark.sweep
def test_weights_get_no_gradient_and_nothing_is_kept():
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:  # where no other test has left anything
        (early, late), has_gradients = pool.submit(tensors_after, (4, 99)).result()
    assert early == late
    assert not has_gradients


def broken(i):
    def fail(*_):
        raise RuntimeError("half way")

    model = build()
    rl.wrap(model).blocks[i].module.conv2.register_forward_pre_hook(fail)
    return model


CALLS = {
    "exact": lambda model: rl.PathGradient(model).analyze(data(), **QUIET),
    "sample": lambda model: rl.PathGradient(model).analyze(data(), method="sample", n_draws=2, **QUIET),
    "attribute": lambda model: rl.PathGradient(model).attribute(data()[0], target=1, path_length=2),
    "delta": lambda model: rl.PathGradient(model).compute_convergence_delta(data()[0], data()[0], target=1),
    "effective": lambda model: rl.EffectivePath(model).analyze(data(), n_draws=2, **QUIET),
    "effective attribute": lambda model: rl.EffectivePath(model).attribute(data()[0], target=1),
    "statistics": lambda model: rl.BlockStatistics(model).analyze(data(), **QUIET),
}


@pytest.mark.parametrize("call", CALLS)
def test_the_model_comes_out_as_it_went_in(call):
    model = build().train()
    model.stem.requires_grad_(False)
    snapshot = Snapshot(model)
    CALLS[call](model)
    snapshot.check()
    model = broken(3)
    snapshot = Snapshot(model)
    with pytest.raises((RuntimeError, ValueError), match="half way"):
        CALLS[call](model)
    snapshot.check()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "fast"}, "method"),
        ({"objective": "mse"}, "objective"),
        ({"wrt": "stage1.7"}, "Did you mean"),
        ({"max_path_length": 7}, "from 0 to 6"),
        ({"method": "exakt"}, 'expected method "exact" or "sample"'),
        ({"objective": "scroe"}, 'expected objective "cross_entropy" or "score"'),
        ({"method": "sample", "per_sample": True}, "exact"),
        ({"method": "sample", "n_draws": 0}, "n_draws"),
        ({"method": "sample", "rtol": 0.0}, "rtol"),
        ({"method": "sample", "rtol": float("inf")}, "rtol > 0, finite"),
        ({"memory_limit": 0}, "memory_limit"),
    ],
)
def test_options_that_make_no_sense(options, message):
    with pytest.raises(ValueError, match=message):
        rl.PathGradient(build()).analyze(data(), **QUIET, **options)


def test_lengths_that_no_path_has():
    with pytest.raises(ValueError, match="path_length to be different counts from 0 to 6"):
        rl.PathGradient(build()).attribute(data()[0], target=1, path_length=7)


def test_results_are_saved_without_loss(tmp_path):
    for method in ("exact", "sample"):
        result = rl.PathGradient(build()).analyze(data(), method=method, n_draws=3, **QUIET)
        rl.save(result, tmp_path / "result.nc")
        xr.testing.assert_identical(rl.open(tmp_path / "result.nc"), result)
        for variable in result.variables.values():
            assert {"long_name", "units"} <= variable.attrs.keys()


@pytest.mark.parametrize("options", [{"max_path_length": [3, 5]}, {"wrt": ["layer1.0", "layer1.1"]}, {"wrt": 0}])
def test_options_of_one_value_take_one(options):
    with pytest.raises(TypeError, match=r"expected max_path_length to be an integer|expected wrt as the name"):
        rl.PathGradient(build()).analyze(data(), **options, **QUIET)
