"""Gradient norms by path length, measured over data, are those of every path by itself, enumerated."""

import copy
import math

import numpy as np
import pytest
import timm
import torch
from helpers import reference_gradient as reference
from helpers.models import CASES, build, data, images, labels
from helpers.reference_gradient import norm, of_length

import resnet_lesion as rl
from resnet_lesion.digits import load_digits
from resnet_lesion.network.paths import draw_path

QUIET = {"show_progress": False}


@pytest.mark.parametrize("name", reference.BUILD)
def test_exact_is_the_sum_over_all_paths_of_each_length(name):
    gradients = reference.enumerated(name, "cross_entropy")
    algorithm = rl.PathGradient(reference.build(name))
    result = algorithm.analyze(reference.data(), method="exact", per_sample=True, **QUIET)
    expected = np.array([norm(of_length(gradients, k)).numpy() for k in range(9)])
    np.testing.assert_allclose(result.sample_sum_gradient_norm.T, expected, rtol=1e-12)
    np.testing.assert_allclose(result.sum_gradient_norm, expected.mean(1), rtol=1e-12)
    assert result.convergence_delta < 1e-12
    np.testing.assert_allclose(result.full_gradient_norm, float(norm(sum(gradients.values())).mean()), rtol=1e-12)


@pytest.mark.parametrize("name", reference.BUILD)
def test_gradients_at_every_block(name):
    model, (x, targets) = reference.build(name), reference.data(2)
    result = rl.PathGradient(model).analyze((x, targets), **QUIET)
    for block, layer in enumerate(result.layer.values):
        gradients = reference.all_path_gradients(model, x, reference.cross_entropy(targets), wrt=block)
        expected = np.full(9, np.nan)
        expected[: 9 - block] = [float(norm(of_length(gradients, k)).mean()) for k in range(9 - block)]
        np.testing.assert_allclose(result.layer_gradient_norm.sel(layer=layer), expected, rtol=1e-11)
    from_here = rl.PathGradient(model).analyze((x, targets), wrt=str(layer), **QUIET)
    assert from_here.sizes["path_length"] == 2
    assert from_here.layer.values.tolist() == [layer]
    assert from_here.convergence_delta < 1e-12
    np.testing.assert_allclose(from_here.sum_gradient_norm, expected[:2], rtol=1e-11)


@pytest.mark.parametrize("name", reference.BUILD)
def test_sampled_paths_are_measured_one_by_one(name):
    gradients = reference.enumerated(name, "cross_entropy")
    algorithm = rl.PathGradient(reference.build(name))
    result = algorithm.analyze(reference.data(), method="sample", n_draws=6, seed=3, **QUIET)
    assert result.gradient_norm.dims == ("path_length", "draw")
    assert result.path.dims == ("path_length", "draw", "layer")
    for k in range(9):
        for draw in range(6):
            path = result.path.sel(path_length=k, draw=draw).values
            assert path.tolist() == draw_path(8, k, seed=3, draw=draw).tolist()
            assert path.sum() == k
            expected = float(norm(gradients[tuple(path.astype(int))]).mean())
            np.testing.assert_allclose(result.gradient_norm.sel(path_length=k, draw=draw), expected, rtol=1e-11)
    norms = result.gradient_norm.values
    np.testing.assert_allclose(result.mean_gradient_norm, norms.mean(1))
    np.testing.assert_allclose(result.gradient_norm_standard_error, norms.std(1, ddof=1) / math.sqrt(6))
    assert result.n_draws.values.tolist() == [6] * 9


@pytest.mark.parametrize("name", reference.BUILD)
def test_sampled_paths_from_a_block_on_are_measured_one_by_one(name):
    model, (x, targets), first = reference.build(name), reference.data(2), 5
    gradients = reference.all_path_gradients(model, x, reference.cross_entropy(targets), wrt=first)
    options = {"method": "sample", "n_draws": 4, "wrt": rl.wrap(model).layers[first], **QUIET}
    result = rl.PathGradient(model).analyze((x, targets), **options)
    assert dict(result.path.sizes) == {"path_length": 4, "draw": 4, "layer": 3}
    for k in range(4):
        for draw in range(4):
            one = result.sel(path_length=k, draw=draw)
            path = tuple(one.path.values.astype(int).tolist())
            assert sum(path) == k
            np.testing.assert_allclose(one.gradient_norm, float(norm(gradients[path]).mean()), rtol=1e-11)


@pytest.mark.sweep
@pytest.mark.parametrize("name", reference.BUILD)
def test_the_sampled_interval_covers_the_truth_at_its_nominal_rate(name):
    gradients = reference.enumerated(name, "cross_entropy")
    norms = {path: float(norm(gradient).mean()) for path, gradient in gradients.items()}
    n_draws, n_seeds, student_t = 60, 120, 2.001  # 97.5 % point with 59 degrees of freedom
    covered = []
    for k in range(1, 8):
        truth = np.mean([value for path, value in norms.items() if sum(path) == k])
        for seed in range(n_seeds):
            draws = [norms[tuple(draw_path(8, k, seed=seed, draw=d).astype(int))] for d in range(n_draws)]
            error = np.std(draws, ddof=1) / math.sqrt(n_draws)
            covered.append(abs(np.mean(draws) - truth) <= student_t * error)
    # the draws of a skewed population cover a little less than normal ones would
    assert 0.92 <= np.mean(covered) <= 0.97


def test_masks_do_not_depend_on_batches_or_memory():
    x, targets = data(5)
    whole = (x, targets)
    parts = [(x[:3], targets[:3]), (x[3:], targets[3:])]
    model = build()
    options = {"method": "sample", "n_draws": 3, "seed": 1, **QUIET}
    one = rl.PathGradient(model).analyze(whole, **options)
    for batches, limit in ((parts, None), (whole, 20_000)):
        other = rl.PathGradient(model).analyze(batches, memory_limit=limit, **options)
        np.testing.assert_array_equal(one.path, other.path)
        np.testing.assert_allclose(one.gradient_norm, other.gradient_norm, rtol=1e-10)
    exact = rl.PathGradient(model).analyze(whole, **QUIET)
    for batches, limit in ((parts, None), (whole, 1), (parts, 20_000)):
        other = rl.PathGradient(model).analyze(batches, memory_limit=limit, **QUIET)
        np.testing.assert_allclose(exact.layer_gradient_norm, other.layer_gradient_norm, rtol=1e-10)
    again = rl.PathGradient(model).analyze(whole, method="sample", n_draws=8, seed=1, **QUIET)
    np.testing.assert_array_equal(one.path, again.path.sel(draw=slice(0, 2)))


def test_the_longest_path_bounds_the_work():
    model = build()
    full = rl.PathGradient(model).analyze(data(), **QUIET)
    short = rl.PathGradient(model).analyze(data(), max_path_length=2, **QUIET)
    assert short.path_length.values.tolist() == [0, 1, 2]
    np.testing.assert_allclose(short.sum_gradient_norm, full.sum_gradient_norm[:3])
    np.testing.assert_allclose(short.layer_gradient_norm, full.layer_gradient_norm[:, :3])
    assert short.convergence_delta > 1e-3
    sampled = rl.PathGradient(model).analyze(data(), method="sample", max_path_length=2, n_draws=3, **QUIET)
    assert sampled.path_length.values.tolist() == [0, 1, 2]


def test_rtol_stops_each_length_when_it_is_known_well_enough():
    result = rl.PathGradient(build()).analyze(data(), method="sample", n_draws=200, rtol=0.1, **QUIET)
    taken = result.n_draws
    assert taken.sel(path_length=0) == taken.sel(path_length=6) == 32, "there is one such path only"
    assert len(set(taken.values.tolist())) > 1
    for k in range(7):
        row = result.gradient_norm.sel(path_length=k).values
        assert np.isfinite(row[: int(taken[k])]).all()
        assert np.isnan(row[int(taken[k]) :]).all()
        mean = row[: int(taken[k])].mean()
        np.testing.assert_allclose(result.mean_gradient_norm[k], mean)
        assert taken[k] == 200 or result.gradient_norm_standard_error[k] <= 0.1 * mean
    fixed = rl.PathGradient(build()).analyze(data(), method="sample", n_draws=32, **QUIET)
    np.testing.assert_allclose(result.gradient_norm.sel(draw=slice(0, 31)), fixed.gradient_norm, rtol=1e-10)


def test_objective_score():
    gradients = reference.enumerated("pre-activation", "score")
    algorithm = rl.PathGradient(reference.build("pre-activation"))
    result = algorithm.analyze(reference.data(), objective="score", **QUIET)
    expected = [float(norm(of_length(gradients, k)).mean()) for k in range(9)]
    np.testing.assert_allclose(result.sum_gradient_norm, expected, rtol=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_every_kind_of_block(name):
    model = build(name)
    result = rl.PathGradient(model).analyze(data(3, name), **QUIET)
    assert result.convergence_delta < 1e-12
    n = len(rl.wrap(model))
    sampled = rl.PathGradient(model).analyze(data(3, name), method="sample", n_draws=1, **QUIET)
    for k in (0, n):  # one path only: the norm of the sum is the norm of the path
        np.testing.assert_allclose(sampled.gradient_norm[k, 0], result.sum_gradient_norm[k], rtol=1e-10)


def test_long_paths_keep_their_digits():
    inputs, targets = images(2, (3, 8, 8), dtype=torch.float32), labels(2)
    model = timm.create_model("cifar_preactresnet110", pretrained=True)
    single = rl.PathGradient(model).analyze((inputs, targets), **QUIET)
    double = rl.PathGradient(model.double()).analyze((inputs, targets), **QUIET)
    assert double.sum_gradient_norm[-1] < 1e-38, "float32 alone has lost it"
    np.testing.assert_allclose(single.sum_gradient_norm, double.sum_gradient_norm, rtol=1e-3)


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.bfloat16, 0.1), (torch.float16, 0.05)])
def test_half_precision_keeps_small_gradients(dtype, rtol):
    """A trained network is sure of its images: in half precision softmax less the target would be zero."""
    model = timm.create_model("cifar_preactresnet110", pretrained=True).eval()
    inputs, targets = (part[:8] for part in load_digits("train"))
    found, expected = (
        [
            rl.PathGradient(of).analyze((inputs, targets), **QUIET),
            # up to half of the blocks: small enough (1e-24), and a third of the time
            rl.PathGradient(of).analyze((inputs, targets), method="sample", n_draws=3, max_path_length=27, **QUIET),
        ]
        for of in (copy.deepcopy(model).to(dtype), model)
    )
    np.testing.assert_allclose(found[0].full_gradient_norm, expected[0].full_gradient_norm, rtol=rtol)
    assert found[0].convergence_delta < 0.05
    np.testing.assert_allclose(found[0].sum_gradient_norm, expected[0].sum_gradient_norm, rtol=4 * rtol)
    assert (found[1].gradient_norm > 0.5 * expected[1].gradient_norm).all()
    assert (found[1].gradient_norm < 2 * expected[1].gradient_norm).all()
    mean_ratio = (found[1].mean_gradient_norm / expected[1].mean_gradient_norm).values
    np.testing.assert_allclose(mean_ratio, 1, rtol=6 * rtol)


def test_autocast_to_float16_keeps_the_range():
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", num_classes=10, img_size=32, depth=8).eval()
    data = torch.randn(4, 3, 32, 32), torch.tensor([1, 5, 7, 2])
    fast = rl.accelerate(model, data[0], autocast=torch.float16, channels_last=False)
    for method in ("exact", "sample"):
        options = {"method": method, **({"n_draws": 2} if method == "sample" else {}), **QUIET}
        found, expected = (rl.PathGradient(of).analyze(data, **options) for of in (fast, model))
        name = "sum_gradient_norm" if method == "exact" else "mean_gradient_norm"
        np.testing.assert_allclose(found[name], expected[name], rtol=0.05)


@pytest.mark.parametrize("method", ["exact", "sample"])
def test_gradients_out_of_range_are_refused(method):
    model = timm.create_model("cifar_preactresnet38").eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.constant_(module.weight, 10.0)
    options = {} if method == "exact" else {"n_draws": 2}
    data = torch.randn(2, 3, 8, 8), torch.tensor([0, 1])
    with pytest.raises(
        ValueError, match=r"expected finite gradients, got NaN or infinity: they leave the range of torch"
    ):
        rl.PathGradient(model).analyze(data, objective="score", method=method, **options, **QUIET)
    assert rl.PathGradient(model.double()).analyze(data, objective="score", method=method, **options, **QUIET)
