import numpy as np
import pytest
import torch
from captum.attr import FeatureAblation, LayerFeatureAblation, Saliency
from captum.attr._utils.attribution import PerturbationAttribution
from captum.metrics import sensitivity_max
from helpers import models, reference

import resnet_lesion as rl

N = 4
ORDERS = [[2, 1, 0, 3, 5, 4], [-1, 1, 1, 3, 4, 5], [0, 1, 2, 3, 4, 5]]
TARGETS = {
    "int": 2,
    "list": [0, 1, 4, 1],
    "tensor": torch.tensor([0, 1, 4, 1]),
    "tensor of one": torch.tensor([3]),
    "tuples": [(0,), (1,), (4,), (1,)],
    "tuple": (2,),
}


def ablated(model, case, inputs, target, names=None):
    """Captum's own feature ablation, the features being a mask of blocks."""
    names = reference.layers(model)
    exits = [reference.exit_of(model.get_submodule(name), case) for name in names]

    def forward(mask, images):
        handles = [
            module.register_forward_hook(
                lambda _module, _args, output, kept=mask[:, i]: torch.where(
                    kept.reshape(-1, 1, 1, 1) > 0, output, torch.zeros_like(output)
                )
            )
            for i, module in enumerate(exits)
        ]
        scores = model(images)
        for handle in handles:
            handle.remove()
        return scores

    mask = torch.ones(len(inputs), len(names), dtype=inputs.dtype)
    with torch.no_grad():
        return FeatureAblation(forward).attribute(mask, target=target, additional_forward_args=(inputs,))


def check_close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", models.CASES)
def test_deletion_equals_captums_feature_ablation(name):
    case, model = models.CASES[name], models.build(name)
    inputs, targets = models.data(N, name)
    found = rl.Deletion(model).attribute(inputs, targets)
    assert found.shape == (N, len(reference.layers(model)))
    check_close(found, ablated(model, case, inputs, targets))


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_targets_of_every_kind_select_as_in_captum(target):
    model, inputs = models.build(), models.images(N)
    check_close(
        rl.Deletion(model).attribute(inputs, target), ablated(model, models.CASES["post-activation"], inputs, target)
    )


def test_deletion_equals_captums_layer_feature_ablation():
    model, (inputs, targets) = models.build("resnet basic"), models.data(N, "resnet basic")
    found = rl.Deletion(model).attribute(inputs, targets)
    for i, name in enumerate(reference.layers(model)):
        ablation = LayerFeatureAblation(model, model.get_submodule(name).bn2)
        one_feature = torch.zeros(1, 1, 1, 1, dtype=torch.long)
        with torch.no_grad():
            expected = ablation.attribute(inputs, layer_baselines=0, target=targets, layer_mask=one_feature)
        check_close(found[:, i], expected[:, 0, 0, 0])


@pytest.mark.parametrize("name", models.HAND_BUILT)
def test_reorder_is_the_score_lost(name):
    case, model = models.CASES[name], models.build(name)
    inputs, targets = models.data(N, name)
    found = rl.Reorder(model).attribute(inputs, targets, orders=ORDERS)
    scores = reference.logits(model, case, [range(6), *ORDERS], inputs)[:, torch.arange(N), targets]
    check_close(found, (scores[:1] - scores[1:]).T)
    assert (found[:, 2].abs() <= 1e-12).all()


@pytest.mark.parametrize("size", [None, 1, 2, 3, 50])
def test_passes_of_any_size_give_the_same(size):
    model, (inputs, targets) = models.build(), models.data(N)
    expected = ablated(model, models.CASES["post-activation"], inputs, targets)
    check_close(rl.Deletion(model).attribute(inputs, targets, perturbations_per_eval=size), expected)


class TakesMore(models.Net):
    """The image is multiplied by a weight of its own, and added to, before the blocks."""

    def forward(self, x, weight, offset=None, sign=1):
        x = sign * x * weight[:, None, None, None]
        return super().forward(x if offset is None else x + offset)


@pytest.mark.parametrize("extra", [(), (torch.tensor(0.5).double(),), (torch.tensor(0.5).double(), -1)])
def test_additional_arguments_reach_the_model(extra):
    model = models.randomised(TakesMore(models.PostActivation)).double().eval()
    (inputs, targets), weight = models.data(N), torch.tensor([1.0, -1, 0.5, 2]).double()
    whole = ablated(
        models.randomised(models.Net(models.PostActivation)).double().eval(),
        models.CASES["post-activation"],
        (extra[1] if len(extra) > 1 else 1) * inputs * weight[:, None, None, None] + (extra[0] if extra else 0),
        targets,
    )
    found = rl.Deletion(model).attribute(inputs, targets, additional_forward_args=(weight, *extra))
    check_close(found, whole)
    if not extra:
        check_close(rl.Deletion(model).attribute(inputs, targets, additional_forward_args=weight), whole)
    orders = np.where(np.eye(6, dtype=bool), -1, np.arange(6))
    check_close(rl.Reorder(model).attribute(inputs, targets, (weight, *extra), orders=orders), whole)
    gradient = rl.PathGradient(model).attribute(inputs, targets, (weight, *extra))
    saliency = Saliency(model).attribute(inputs.requires_grad_(), targets, False, (weight, *extra))
    torch.testing.assert_close(gradient, saliency, rtol=1e-8, atol=1e-10)


class OneScore(models.Net):
    def forward(self, x):
        return super().forward(x)[:, 0]


def test_a_model_of_one_score_needs_no_target():
    with_scores, without = (
        models.randomised(net(models.PostActivation)).double().eval() for net in (models.Net, OneScore)
    )
    inputs = models.images(N)
    check_close(rl.Deletion(without).attribute(inputs), rl.Deletion(with_scores).attribute(inputs, 0))


def test_they_are_captum_algorithms():
    model = models.build()
    for algorithm in (rl.Deletion(model), rl.Reorder(model)):
        assert isinstance(algorithm, PerturbationAttribution)
        assert algorithm.forward_func is model


@pytest.mark.parametrize("algorithm", [rl.Deletion, rl.Reorder, rl.PathGradient, rl.EffectivePath])
def test_a_tuple_of_one_tensor_gives_one_as_in_captum(algorithm):
    one, inputs = algorithm(models.build()), models.images(N)
    options = {"orders": ORDERS} if algorithm is rl.Reorder else {}
    (inside,) = one.attribute((inputs,), target=1, **options)
    check_close(inside, one.attribute(inputs, target=1, **options))


def test_captums_metrics_take_them():
    gradient, inputs = rl.PathGradient(models.build()), models.images(N)
    options = {"target": TARGETS["tensor"], "path_length": [1, 2]}
    double = {"perturb_func": lambda inputs, _radius: 2 * inputs, "n_perturb_samples": 1}
    whole, other = (gradient.attribute(factor * inputs, **options) for factor in (1, 2))
    expected = (other - whole).flatten(1).norm(dim=1) / whole.flatten(1).norm(dim=1)
    check_close(sensitivity_max(gradient.attribute, inputs, **double, **options), expected)


def test_delta_of_a_tuple():
    gradient, inputs = rl.PathGradient(models.build()), models.images(N)
    (attributions,), delta = gradient.attribute((inputs,), target=1, return_convergence_delta=True)
    assert attributions.shape == inputs.shape
    assert torch.equal(gradient.compute_convergence_delta((attributions,), (inputs,), target=1), delta)


X = models.images(N)


@pytest.mark.parametrize(
    ("inputs", "target", "error", "message"),
    [
        (X, None, ValueError, "selects one score for each image, got None .* Pass target=labels or target=class_index"),
        (X, 5, ValueError, r"selects one of the outputs \(4, 5\) for each image, got 5"),
        (X, [0, 1], ValueError, r"for each image, got \[0, 1\]"),
        (X, torch.tensor([0, 1, 2, 9]), ValueError, r"for each image, got tensor\(\[0, 1, 2, 9\]\)"),
        (X, "cat", ValueError, "for each image, got 'cat'"),
        (X, (0, 1), ValueError, r"for each image, got \(0, 1\)"),
        (X[:0], 0, ValueError, r"inputs \(N, ...\) with N >= 1, got shape \(0, 3, 6, 6\)"),
        (X[0, 0, 0], 0, ValueError, r"inputs \(N, ...\) with N >= 1, got shape \(6,\)"),
        (X / 0, 0, ValueError, "expected finite inputs, got NaN or infinity"),
        (X[:, :2], 0, RuntimeError, r"to have 3 channels, but got 2 channels"),
        (X.numpy(), 0, TypeError, r"one tensor \(N, ...\), got ndarray"),
        ((X, X), 0, TypeError, r"one tensor \(N, ...\), got tuple"),
    ],
)
def test_bad_input_is_refused(inputs, target, error, message):
    with pytest.raises(error, match=message):
        rl.Deletion(models.build()).attribute(inputs, target)
    with pytest.raises(error, match=message):
        rl.Reorder(models.build()).attribute(inputs, target, orders=ORDERS)


@pytest.mark.parametrize(
    ("orders", "error", "message"),
    [
        ([[0, 1]], ValueError, r"\(n_lesions, 6\).* got shape \(1, 2\)"),
        ([[0.5, 1, 2, 3, 4, 5]], TypeError, "expected integer order rows, got float64"),
        ([[3, 1, 2, 0, 4, 5]], ValueError, "'stage2.0' .* cannot run in the place of 'stage1.0'"),
    ],
)
def test_bad_orders_are_refused(orders, error, message):
    with pytest.raises(error, match=message):
        rl.Reorder(models.build()).attribute(X, 0, orders=orders)
