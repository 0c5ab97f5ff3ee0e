"""What a user would write instead finds what a naive loop finds."""

import numpy as np
import pytest
import torch
from helpers import models, reference, reference_gradient

import resnet_lesion as rl
from benchmarks import alternatives


def rows_for(network):
    """Each block deleted alone, two subsets, and two neighbours swapped."""
    n = len(network)
    rows = [[*range(i), -1, *range(i + 1, n)] for i in range(n)]
    first = next(i for i in range(n) if not network.is_downsampling[i : i + 2].any())
    swapped = [*range(first), first + 1, first, *range(first + 2, n)]
    return np.array(rows), np.array([[-1] * n, [i if i % 2 else -1 for i in range(n)]]), np.array([swapped])


@pytest.mark.parametrize("case", ["resnet basic", "resnet bottleneck se, avg_down, blur", "resnetv2 basic"])
def test_alternatives_equal_a_naive_loop(case):
    model, data = models.build(case), models.data(3, case)
    network = rl.wrap(model)
    each, subsets, swaps = rows_for(network)
    before = models.Snapshot(model)
    for loop, rows in [
        (alternatives.hook_loop, np.vstack([each, subsets])),
        (alternatives.replaced_blocks, np.vstack([each, subsets, swaps])),
        (alternatives.captum_layers, each),
        (alternatives.captum_features, np.vstack([each, subsets])),
    ]:
        logits = reference.logits(model, models.CASES[case], rows, data[0])
        expected = torch.stack([alternatives.scores(of_row, data[1]) for of_row in logits])
        torch.testing.assert_close(loop(network, rows, *data), expected, rtol=1e-9, atol=1e-9)
    before.check()


def test_stacked_lesions_of_captum_are_the_same():
    network, data = rl.wrap(models.build("resnetv2 basic")), models.data(3, "resnetv2 basic")
    rows = rows_for(network)[0]
    one, several = (alternatives.captum_features(network, rows, *data, perturbations_per_eval=k) for k in (1, 4))
    torch.testing.assert_close(one, several, rtol=1e-9, atol=1e-9)


def test_the_lead_is_positive_where_the_class_is_right():
    logits, targets = torch.tensor([[1.0, 3.0, 2.0], [1.0, 3.0, 2.0]]), torch.tensor([1, 2])
    assert alternatives.scores(logits, targets)[:, 0].tolist() == [1, -1]


def test_routed_loop_equals_paths_written_out_by_hand():
    model = reference_gradient.build("pre-activation")
    inputs, targets = models.images(3, (3, 8, 8)), models.labels(3)
    paths = np.array([[1, 0] * 4, [0] * 8, [1] * 8])
    objective = reference_gradient.cross_entropy(targets)
    expected = [
        reference_gradient.path_gradient(model, inputs, objective, path).flatten(1).norm(dim=1).mean() for path in paths
    ]
    found = alternatives.routed_loop(rl.wrap(model), paths, inputs, targets)
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-9, atol=0)
