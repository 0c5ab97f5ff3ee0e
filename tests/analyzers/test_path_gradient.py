import copy
import gc
import math

import numpy as np
import pytest
import timm
import torch
import xarray as xr
from captum.attr import NoiseTunnel, Saliency
from captum.attr import visualization as viz
from helpers import reference_gradient as reference
from helpers.models import CASES, Snapshot, build, data, images, labels

import resnet_lesion as rl
from resnet_lesion.digits import load_digits
from resnet_lesion.network.paths import draw_path

SHAPE = (3, 32, 32)
QUIET = {"show_progress": False}


@pytest.fixture(scope="module", params=reference.BUILD)
def enumerated(request):
    """Give a network of 8 blocks, three images, and the gradient along each of its 256 paths."""
    model, x, targets = reference.build(request.param), images(3, SHAPE), labels(3)
    return model, x, targets, reference.all_path_gradients(model, x, reference.cross_entropy(targets))


def norm(gradients):
    return gradients.flatten(1).norm(dim=1)


def of_length(gradients, k):
    return sum(gradient for path, gradient in gradients.items() if sum(path) == k)


def close(a, b, tolerance=1e-12):
    return float(torch.as_tensor(a - b).abs().max()) <= tolerance * float(torch.as_tensor(b).abs().max())


def test_exact_is_the_sum_over_all_paths_of_each_length(enumerated):
    model, x, targets, gradients = enumerated
    result = rl.PathGradient(model).analyze((x, targets), method="exact", per_sample=True, **QUIET)
    expected = np.array([norm(of_length(gradients, k)).numpy() for k in range(9)])
    np.testing.assert_allclose(result.sample_sum_gradient_norm.T, expected, rtol=1e-12)
    np.testing.assert_allclose(result.sum_gradient_norm, expected.mean(1), rtol=1e-12)
    assert result.convergence_delta < 1e-12
    np.testing.assert_allclose(result.full_gradient_norm, float(norm(sum(gradients.values())).mean()), rtol=1e-12)


@pytest.mark.parametrize("name", reference.BUILD)
def test_attribute_of_each_length_equals_enumeration_and_all_of_them_saliency(name):
    model, x, targets = reference.build(name), images(3, SHAPE), labels(3)
    gradients = reference.all_path_gradients(model, x, reference.score(targets))
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
def test_gradients_at_every_block(name):
    model, x, targets = reference.build(name), images(2, SHAPE), labels(2)
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
    score = reference.all_path_gradients(model, x, reference.score(targets), wrt=5)
    attribution = rl.PathGradient(model).attribute(x, targets, path_length=2, wrt=rl.wrap(model).layers[5])
    assert close(attribution, of_length(score, 2))


def test_sampled_paths_are_measured_one_by_one(enumerated):
    model, x, targets, gradients = enumerated
    result = rl.PathGradient(model).analyze((x, targets), method="sample", n_draws=6, seed=3, **QUIET)
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


@pytest.mark.sweep
def test_the_sampled_interval_covers_the_truth_at_its_nominal_rate(enumerated):
    _, _, _, gradients = enumerated
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
    model, x, targets = reference.build("pre-activation"), images(2, SHAPE), labels(2)
    gradients = reference.all_path_gradients(model, x, reference.score(targets))
    result = rl.PathGradient(model).analyze((x, targets), objective="score", **QUIET)
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
    model = build(dtype=torch.float32)
    algorithm, batch = rl.PathGradient(model), data(2, dtype=torch.float32)

    def living() -> int:
        gc.collect()
        return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())

    counts = []
    for _ in range(100):
        algorithm.analyze(batch, method="sample", n_draws=1, **QUIET)
        algorithm.attribute(batch[0], target=batch[1])
        counts.append(living() if len(counts) in (4, 99) else 0)
    assert counts[4] == counts[99]
    assert all(parameter.grad is None for parameter in model.parameters())


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


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.bfloat16, 0.1), (torch.float16, 0.05)])
def test_half_precision_keeps_small_gradients(dtype, rtol):
    """A trained network is sure of its images: in half precision softmax less the target would be zero."""
    model = timm.create_model("cifar_preactresnet110", pretrained=True).eval()
    inputs, targets = (part[:8] for part in load_digits("train"))
    found, expected = (
        [
            rl.PathGradient(of).analyze((inputs, targets), **QUIET),
            rl.PathGradient(of).analyze((inputs, targets), method="sample", n_draws=3, **QUIET),
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
    model = timm.create_model("vit_tiny_patch16_224", num_classes=10, img_size=32).eval()
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
            torch.nn.init.constant_(module.weight, 40.0)
    options = {} if method == "exact" else {"n_draws": 2}
    data = torch.randn(2, 3, 8, 8), torch.tensor([0, 1])
    with pytest.raises(
        ValueError, match=r"expected finite gradients, got NaN or infinity: they leave the range of torch"
    ):
        rl.PathGradient(model).analyze(data, objective="score", method=method, **options, **QUIET)
    assert rl.PathGradient(model.double()).analyze(data, objective="score", method=method, **options, **QUIET)
