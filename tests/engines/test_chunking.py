import numpy as np
import pytest
import torch
from helpers import models, reference
from torch import nn

import resnet_lesion as rl
from resnet_lesion.engines import chunking
from resnet_lesion.engines.chunking import Chunks
from resnet_lesion.engines.proof import prove
from resnet_lesion.network.orders import whole

ROWS = np.array([[0, 1, 2, 3, 4, 5], *np.where(np.eye(6, dtype=bool), -1, np.arange(6)), [2, 1, 0, 3, 5, 4]])
N = 8
PROOF = [5, 1, 3]  # images in the passes before anything is counted: in a batch, alone, with their rows shuffled


class Memory:
    """Lets a model run out of memory when its last block is given more than ``rows`` rows, and notes each attempt.

    The first passes, in which the network is proved on a few images, always fit.
    """

    def __init__(self, model: nn.Module, rows: int) -> None:
        self.rows, self.images, self.streams = rows, list[int](), list[int]()
        model.stem.register_forward_pre_hook(lambda _module, args: self.images.append(len(args[0])))
        model.stage2[2].conv1.register_forward_pre_hook(self._allocate)

    def _allocate(self, _module, args):
        self.streams.append(len(args[0]) // self.images[-1])
        if len(args[0]) > self.rows and len(self.streams) > len(PROOF):
            raise torch.OutOfMemoryError("CUDA out of memory")


def evaluate(model, size=None):
    return rl.evaluate(model, models.data(N), ROWS, perturbations_per_eval=size, show_progress=False)


@pytest.mark.parametrize("size", [None, 1, 2, 5])
@pytest.mark.parametrize("rows", [60, 30, 7, 6, 1])
def test_running_out_of_memory_changes_no_result(rows, size):
    expected = evaluate(models.build())
    model = models.build()
    Memory(model, rows)
    snapshot = models.Snapshot(model)
    found = evaluate(model, size)
    snapshot.check()
    np.testing.assert_array_equal(found.correct, expected.correct)
    np.testing.assert_array_equal(found.agreement, expected.agreement)
    np.testing.assert_allclose(found.loss, expected.loss, rtol=1e-12)


def test_images_are_halved_before_lesions():
    model = models.build()
    memory = Memory(model, rows=16)  # 8 streams come to the last block: two images' worth
    found = evaluate(model)
    assert memory.images == [*PROOF, 8, 4, 2, 2, 2, 2]
    assert found.attrs["block_evaluations"] == reference.block_evaluations(ROWS), "no prefix is computed twice"


def test_lesions_are_halved_when_one_image_is_too_many():
    model = models.build()
    memory = Memory(model, rows=3)
    found = evaluate(model)
    assert memory.images[: len(PROOF) + 4] == [*PROOF, 8, 4, 2, 1]
    assert set(memory.images[len(PROOF) + 4 :]) == {1}
    assert max(memory.streams[-N:]) <= 3
    assert found.attrs["block_evaluations"] > reference.block_evaluations(ROWS), "prefixes are computed again"


def test_too_little_memory_for_one_image_and_lesion():
    model = models.build()
    memory = Memory(model, rows=0)
    snapshot = models.Snapshot(model)
    with pytest.raises(torch.OutOfMemoryError):
        evaluate(model)
    snapshot.check()
    assert (memory.images[-1], memory.streams[-1]) == (1, 1)


@pytest.mark.parametrize(("n_bytes", "images"), [(1, [1] * N), (10**12, [N])])
def test_images_are_cut_to_fit_a_budget(n_bytes, images, monkeypatch):
    expected = evaluate(models.build())
    monkeypatch.setattr(chunking, "_CPU_BYTES", n_bytes)
    model = models.build()
    memory = Memory(model, rows=10**9)
    found = evaluate(model)
    assert memory.images == [*PROOF, *images]
    np.testing.assert_array_equal(found.correct, expected.correct)
    assert found.attrs["block_evaluations"] == expected.attrs["block_evaluations"]


def test_attribution_backs_off_too():
    inputs, targets = models.data(N)
    expected = rl.Deletion(models.build()).attribute(inputs, targets)
    for rows in (7, 1):
        model = models.build()
        Memory(model, rows)
        torch.testing.assert_close(rl.Deletion(model).attribute(inputs, targets), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_no_pass_has_more_lesions_than_allowed(size):
    model = models.build()
    network = rl.wrap(model)
    inputs = models.images(2)
    rows = np.concatenate([whole(6)[None], ROWS])
    chunks = Chunks(network, rows, prove(network, inputs), size)
    with torch.no_grad():
        chosen = [(len(outputs), len(indices)) for outputs, indices in chunks.outputs(inputs)]
        seen = np.concatenate([indices for _, indices in chunks.outputs(inputs)])
    assert all(a == b <= size for a, b in chosen)
    assert sorted(seen.tolist()) == [*range(len(rows))]


@pytest.mark.parametrize(("size", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError)])
def test_a_wrong_number_of_lesions_per_pass_is_refused(size, error):
    for analyze in (
        lambda: evaluate(models.build(), size),
        lambda: rl.Deletion(models.build()).attribute(*models.data(2), perturbations_per_eval=size),
    ):
        with pytest.raises(error, match=f"expected perturbations_per_eval .* got {size}"):
            analyze()
