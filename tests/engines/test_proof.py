import json
import warnings
from collections import Counter
from contextlib import suppress

import numpy as np
import pytest
import torch
from helpers import models, patches
from helpers.analyses import QUIET, Batches
from torch.nn import functional as F

import resnet_lesion as rl
from resnet_lesion.engines.proof import N_IMAGES, prove
from resnet_lesion.reports.summary import as_json

N = 9
MODELS = ("functional", "pre-activation")  # blocks end with conv2


def plain_loop(model, network, data, size, rows):
    """Count by hand, one lesion after another: the exits of deleted blocks return zero; buffers begin as they are."""
    blocks, buffers = [block.module for block in network.blocks], {k: v.clone() for k, v in model.named_buffers()}
    correct, losses = [], []
    for row in rows:
        handles = [
            block.conv2.register_forward_hook(lambda _m, _a, y: torch.zeros_like(y))
            for block, i in zip(blocks, row, strict=True)
            if i < 0
        ]
        outputs = []
        for inputs, _ in Batches(data, size):
            with torch.no_grad():
                outputs.append(model(inputs))
                for name, buffer in model.named_buffers():
                    buffer.copy_(buffers[name])
        for handle in handles:
            handle.remove()
        logits = torch.cat(outputs)
        correct.append(int((logits.argmax(1) == data[1]).sum()))
        losses.append(float(F.cross_entropy(logits, data[1])))
    return correct, losses


def patched(seed, kinds):
    """A network that was wrapped first and patched afterwards, and the generator of everything random."""
    rng = np.random.default_rng(seed)
    model = models.build(MODELS[rng.integers(len(MODELS))])
    network = rl.wrap(model)
    blocks = [block.module for block in network.blocks]
    for kind in kinds(rng):
        kind(model, blocks, rng)
    return model, network, rng


def outcome(seed, kinds):
    """Compare with the plain loop, and the gradient of all paths with the ordinary one; say what happened."""
    model, network, rng = patched(seed, kinds)
    data, size = models.data(N), int(rng.integers(2, 6))
    rows = np.tile(np.arange(len(network)), (4, 1))
    rows[1:][rng.random((3, len(network))) < 0.3] = -1
    try:
        expected = plain_loop(model, rl.wrap(model), data, size, rows)
    except (RuntimeError, IndexError):
        return "broken: patches that do not go together", model, data
    before = {k: v.clone() for k, v in model.state_dict().items()}
    said = "numbers"
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            each = int(rng.integers(1, 4)) if rng.random() < 0.5 else None
            found = rl.evaluate(network, Batches(data, size), rows, perturbations_per_eval=each, **QUIET)
        said = json.loads(found.attrs["proof"])
        said = "numbers" if said["stackable"] else "one by one" if said["independent"] else "batch by batch"
        assert len([w for w in caught if "one by one" in str(w.message)]) == (said != "numbers")
        assert found.correct.values.tolist() == expected[0], (seed, said)
        np.testing.assert_allclose(found.loss, expected[1], rtol=1e-9, err_msg=f"{seed} {said}")
    except (rl.AdapterError, ValueError) as error:
        said = f"refused: {type(error).__name__}"
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), (seed, name)
    return said, model, data


def check_gradient(model, data, seed):
    inputs = data[0][:3].clone().requires_grad_()
    buffers = {k: v.clone() for k, v in model.named_buffers()}
    (whole,) = torch.autograd.grad(model(inputs)[:, 0].sum(), inputs)
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            buffer.copy_(buffers[name])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = rl.PathGradient(model).attribute(data[0][:3], target=0)
    except (rl.AdapterError, ValueError):
        return "refused"
    torch.testing.assert_close(found, whole, rtol=1e-8, atol=1e-10, msg=str(seed))
    return "numbers"


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        *[(kind, "numbers") for kind in patches.NUMBERS],
        *[(kind, "one by one") for kind in patches.ONE_BY_ONE],
        *[(kind, "batch by batch") for kind in patches.BATCH_BY_BATCH],
        *[(kind, "refused: AdapterError") for kind in patches.REFUSED],
    ],
)
def test_each_kind_of_patch_gives_the_plain_loops_numbers_or_a_refusal(kind, expected):
    for seed in range(4):
        said, model, data = outcome(seed, lambda _: [kind])
        assert said == expected, seed
        if kind is not patches.noisy:
            gradient = check_gradient(model, data, seed)
            assert expected == "one by one" or gradient == ("numbers" if expected == "numbers" else "refused"), seed


@pytest.mark.parametrize("part", range(10))
def test_random_patches_give_the_plain_loops_numbers_or_a_refusal(part):
    """With the other parts 500 draws."""

    def one_to_three(rng):
        return rng.choice(np.array(patches.PATCHES, dtype=object), rng.integers(1, 4), replace=False)

    found = Counter(
        outcome(seed, one_to_three)[0].partition(":")[0] for seed in range(100 + 50 * part, 150 + 50 * part)
    )
    assert {"numbers", "batch by batch", "refused"} <= set(found)
    assert found["broken"] < 5


@pytest.mark.filterwarnings("ignore:lesions are run one by one")
@pytest.mark.parametrize("kind", patches.NO_GRADIENTS)
def test_what_the_paths_do_not_carry_is_refused(kind):
    data = models.data(N)
    for analyse in (
        lambda network: rl.PathGradient(network).attribute(data[0], target=0),
        lambda network: rl.PathGradient(network).analyze(Batches(data, 2), method="exact", **QUIET),
        lambda network: rl.PathGradient(network).analyze(Batches(data, 2), method="sample", n_draws=2, **QUIET),
        lambda network: rl.EffectivePath(network).attribute(data[0], target=0),
    ):
        model, network, _ = patched(3, lambda _: [kind])
        before = {name: value.clone() for name, value in model.state_dict().items()}
        with pytest.raises(rl.AdapterError):
            analyse(network)
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_buffers_that_change_do_not_reach_the_next_images_statistics():
    network = patched(3, lambda _: [patches.counts_its_calls])[1]
    data = models.data(N)
    together = rl.BlockStatistics(network).analyze(data, **QUIET)
    apart = rl.BlockStatistics(network).analyze(Batches(data, 2), **QUIET)
    for name in ("branch_to_skip_ratio", "input_output_cosine", "update_gradient_cosine"):
        np.testing.assert_allclose(apart[name], together[name], rtol=1e-9, err_msg=name)


@pytest.mark.parametrize("context", [{"delete": [1]}, {"order": [1, 0, 2, 3, 4, 5]}, {"path": [1, 0, 1, 0, 1, 0]}])
def test_gradients_in_a_context_are_refused_and_lesions_are_the_plain_loops(context):
    model, network, _ = patched(3, lambda _: [patches.nothing])
    data = models.data(N)
    with network.routed(context["path"]) if "path" in context else network.lesioned(**context):
        found = rl.Deletion(model).analyze(Batches(data, 4), **QUIET).loss
        for i, loss in enumerate(found.values):
            with network.lesioned(delete=[i]), torch.no_grad():
                np.testing.assert_allclose(loss, float(F.cross_entropy(model(data[0]), data[1])), rtol=1e-9)
        for analyse in (
            lambda: rl.PathGradient(model).attribute(data[0], target=0),
            lambda: rl.PathGradient(model).analyze(data, **QUIET),
            lambda: rl.BlockStatistics(model).analyze(data, **QUIET),
        ):
            with pytest.raises(rl.PathsError, match="context"):
                analyse()


class Squeezing(torch.nn.Module):
    """A head that works for every batch of two or more."""

    def __init__(self, body):
        super().__init__()
        self.body, self.head = body, body.head
        body.head = torch.nn.Identity()

    def forward(self, x):
        return self.head(self.body(x)[:, :, None, None].squeeze())


@pytest.mark.parametrize("n", [1, 2, 5])
def test_a_head_that_takes_no_batch_of_one_gives_every_images_numbers(n):
    plain, model, data = models.build(), Squeezing(models.build()), models.data(n)
    for analyse in (
        lambda model: rl.Deletion(model).analyze(Batches(data, 2), **QUIET),
        lambda model: rl.PathGradient(model).analyze(Batches(data, 2), method="exact", per_sample=True, **QUIET),
        lambda model: rl.PathGradient(model).analyze(Batches(data, 2), method="sample", n_draws=2, **QUIET),
        lambda model: rl.BlockStatistics(model).analyze(Batches(data, 2), **QUIET),
    ):
        found, expected = analyse(model), analyse(plain)
        for name, values in expected.data_vars.items():
            if values.dtype.kind in "iuf" and name != "convergence_delta":
                np.testing.assert_allclose(found[name], values, rtol=1e-9, err_msg=str(name))
    inputs, targets = data
    for attribute in (
        lambda model: rl.Deletion(model).attribute(inputs, targets),
        lambda model: rl.PathGradient(model).attribute(inputs, targets.tolist(), path_length=2),
    ):
        torch.testing.assert_close(attribute(model), attribute(plain), rtol=1e-9, atol=1e-12)


class AtLeastThree(torch.nn.Module):
    def __init__(self, body):
        super().__init__()
        self.body = body

    def forward(self, x):
        if len(x) < 3:
            raise ValueError("three images at least")
        return self.body(x)


def test_what_could_not_be_tried_is_null_in_a_result():
    with pytest.warns(UserWarning, match="results depend on the batches"):
        found = rl.Deletion(AtLeastThree(models.build())).analyze(models.data(4), **QUIET)
    assert json.loads(found.attrs["proof"])["alone"] is None
    json.loads(as_json(found))


@pytest.mark.parametrize("kind", patches.PATCHES)
@pytest.mark.parametrize("n", [1, N])
@pytest.mark.filterwarnings("ignore:lesions are run one by one", "ignore:results depend on the batches")
def test_it_costs_at_most_three_passes_over_a_few_images(kind, n):
    rows = Counter()
    for seed in range(3):
        _, network, _ = patched(seed, lambda _: [kind])
        rows.clear()
        for module in {block.module for block in network.blocks}:
            module.conv1.register_forward_pre_hook(lambda module, args: rows.update({module: len(args[0])}))
        with suppress(rl.AdapterError, ValueError):
            prove(network, models.data(n)[0])
        assert 0 < max(rows.values()) <= 3 * N_IMAGES, seed
