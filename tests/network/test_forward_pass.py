import dataclasses
import re
from collections import OrderedDict
from typing import NamedTuple

import pytest
import torch
from helpers import models
from torch import nn

import resnet_lesion as rl
from resnet_lesion.network.forward_pass import (
    as_output,
    check_run_order,
    copies,
    overwrites_input,
    run_model,
    slice_batch,
    version_of,
    watch,
)


def watched(model, inputs, *args):
    """Return what the model returned and what was noted."""
    notes = []
    with torch.no_grad():
        output = watch(model, rl.wrap(model).blocks, inputs, lambda *note: notes.append(note), *args)
    return output, notes


@pytest.mark.parametrize("name", models.HAND_BUILT)
def test_inputs_and_outputs_are_noted_block_by_block(name):
    model, x = models.build(name), models.images(2)
    snapshot = models.Snapshot(model)
    output, notes = watched(model, x)
    snapshot.check()
    assert [i for i, _, _ in notes] == [*range(6)]
    with torch.no_grad():
        assert torch.equal(output, model(x))
        y = nn.functional.relu(model.stem(x))
        for (_, given, _), block in zip(notes, [*model.stage1, *model.stage2], strict=True):
            assert torch.equal(given, y)
            y = block(y)
            if block is model.stage1[-1]:
                y = 0.8 * y + 0.1
    assert torch.equal(notes[-1][2], y)


def test_further_arguments_reach_the_model():
    class Scaled(models.Net):
        def forward(self, x, scale):
            return scale * super().forward(x)

    model, x = Scaled(models.PostActivation).double().eval(), models.images(2)
    once, thrice = (watched(model, x, torch.tensor(factor))[0] for factor in (1.0, 3.0))
    torch.testing.assert_close(thrice, 3 * once, rtol=1e-14, atol=0)


class WritesInto(nn.Module):
    """Its branch overwrites what it is given."""

    def __init__(self, *_):
        super().__init__()
        self.body = nn.ReLU(inplace=True)

    def forward(self, x):
        return x + self.body(x)


@rl.register_adapter(WritesInto)
def writes_into(_block):
    return rl.Branch("body", "body")


class Calls(nn.Module):
    """Calls its two blocks as it is told."""

    def __init__(self, call, block=models.PostActivation):
        super().__init__()
        self.blocks, self.call = nn.Sequential(block(3, 3, 1), block(3, 3, 1)).eval(), call

    def forward(self, x):
        return self.call(*self.blocks, x)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda a, b, x: b(x), "block 'blocks.0' ran 0 times in one forward pass; expected once"),
        (lambda a, b, x: b(a(a(x))), "block 'blocks.0' ran 2 times in one forward pass; expected once"),
        (lambda a, b, x: a(b(x)), r"ran in the order \['blocks.1', 'blocks.0'\]; expected the order of their names"),
        (lambda a, b, x: b(a(x=x)), r"'blocks.0' to be called with one tensor, got 0 positional arguments and \['x'\]"),
        (
            lambda a, b, x: b(a(x), x),
            "'blocks.1' to be called with one tensor, got 2 positional arguments and no keywords",
        ),
        (lambda a, b, x: b(a(x), extra=x), r"'blocks.1' to be called with one tensor, got 1 positional .* \['extra'\]"),
    ],
)
def test_blocks_that_do_not_run_once_each_in_order_are_refused(call, message):
    model = Calls(call)
    snapshot = models.Snapshot(model)
    with pytest.raises(rl.AdapterError, match=message):
        watched(model, models.images(1, dtype=torch.float32))
    snapshot.check()


def test_a_block_that_writes_into_its_input_is_refused():
    model = Calls(lambda a, b, x: b(a(x)), WritesInto)
    with pytest.raises(rl.AdapterError, match=r"block 'blocks\.0' \(WritesInto\) overwrites its input"):
        watched(model, models.images(1))


class OwnError(Exception):
    """An error that only the model knows."""


@pytest.mark.parametrize("error", [RuntimeError, AssertionError, KeyError, NotImplementedError, OwnError])
def test_a_models_own_error_stays_what_it_is(error):
    raised = error("too small")

    def fail(*_):
        raise raised

    model = nn.Identity()
    model.forward = fail
    with pytest.raises(error, match="too small") as caught:
        run_model(model, torch.zeros(2, 5))
    assert caught.value is raised
    assert raised.__notes__ == ["This came up as Identity ran on inputs of shape (2, 5)."]
    del raised.__notes__
    model.pretrained_cfg = {"input_size": (3, 224, 192)}
    with pytest.raises(error):
        run_model(model, torch.zeros(2, 5))
    assert raised.__notes__[0].endswith(" Its pretrained_cfg says (N, 3, 224, 192).")


@pytest.mark.parametrize("error", [rl.AdapterError, torch.OutOfMemoryError])
def test_what_is_not_the_inputs_fault_is_not_said_of_them(error):
    def fail(*_):
        raise error("mine")

    model = nn.Identity()
    model.forward = fail
    with pytest.raises(error, match="mine") as caught:
        run_model(model, torch.zeros(2, 5))
    assert not hasattr(caught.value, "__notes__")


class Pair(NamedTuple):
    main: torch.Tensor
    aux: torch.Tensor


@dataclasses.dataclass
class Answer:
    loss: None
    logits: torch.Tensor


class ModelOutput(OrderedDict):
    """Its keys are its attributes too, as transformers' are."""


ROWS, OTHERS = torch.zeros(2, 5), torch.zeros(3, 7)


@pytest.mark.parametrize(
    ("output", "parts", "how"),
    [
        ((ROWS, ROWS), "tuple with [0] (2, 5), [1] (2, 5).", "[0]"),
        ([OTHERS, ROWS], "list with [0] (3, 7), [1] (2, 5).", "[1]"),
        ({"out": ROWS, "aux": None}, "dict with ['out'] (2, 5), ['aux'] NoneType.", "['out']"),
        (Pair(main=OTHERS, aux=ROWS), "Pair with .main (3, 7), .aux (2, 5).", ".aux"),
        (Answer(None, ROWS), "Answer with .loss NoneType, .logits (2, 5).", ".logits"),
        (ModelOutput(hidden=ROWS, logits=ROWS), "ModelOutput with ['hidden'] (2, 5), ['logits'] (2, 5).", "['logits']"),
        ([ROWS] * 10, "[7] (2, 5) and 2 more.", "[0]"),
        ({"out": OTHERS}, "dict with ['out'] (3, 7).", None),
        ((), "got tuple.", None),
        (None, "got NoneType.", None),
        (OTHERS, "got (3, 7). Let it keep the batch in the first dimension", None),
        (torch.tensor(0.0), "got (). Let it keep the batch in the first dimension", None),
    ],
)
def test_an_output_that_is_not_one_tensor_is_taken_apart(output, parts, how):
    message = "one tensor with a row for each of 2 inputs, got .*" + re.escape(parts.removeprefix("got "))
    with pytest.raises(rl.AdapterError, match=message) as caught:
        as_output(output, 2)
    fix = re.search(r"model = (.*)\.$", str(caught.value))
    if how is None:
        assert fix is None
        return
    model = nn.Identity()
    model.forward = lambda _: output
    mended = eval(fix[1], {"torch": torch, "resnet_lesion": rl, "model": model})
    assert how in fix[1]
    assert as_output(mended(ROWS), 2) is ROWS


def test_an_output_with_a_row_for_each_input_is_taken_as_it_is():
    assert as_output(ROWS, 2) is ROWS


def test_the_order_of_the_names_is_the_order_to_run_in():
    check_run_order([0, 1, 2], ["a", "b", "c"])
    check_run_order([], [])
    with pytest.raises(rl.AdapterError, match="block 'c' ran 0 times"):
        check_run_order([0, 1], ["a", "b", "c"])


def test_writes_are_counted_where_torch_counts_them():
    x = torch.zeros(1)
    before = version_of(x)
    x += 1
    assert version_of(x) == before + 1
    with torch.inference_mode():
        assert version_of(torch.zeros(1).add_(1)) == 0


def test_the_fix_for_a_block_that_works_in_place_is_named():
    assert "inplace=False" in str(overwrites_input(rl.wrap(models.build()).blocks[0]))


def test_a_slice_of_a_batch_takes_what_goes_with_the_images():
    images, weights, scale = torch.zeros(4, 1), torch.arange(4), torch.tensor(2.0)
    found = slice_batch(slice(1, 3), images, weights, scale, "mode", None, torch.zeros(5))
    assert len(found[0]) == 2
    assert found[1].tolist() == [1, 2]
    assert found[2] is scale
    assert found[3:5] == ("mode", None)
    assert len(found[5]) == 5


def test_what_a_model_is_given_may_be_written_into():
    x, weight = models.images(2), torch.tensor(2.0)
    given = copies(x, weight, 3, None)
    for tensor in given[:2]:
        tensor.zero_()
    assert given[2:] == (3, None)
    assert torch.equal(x, models.images(2))
    assert weight == 2
    with torch.inference_mode():
        made_there = x.clone()
    assert not copies(made_there)[0].is_inference()


def test_a_model_that_works_on_its_input_leaves_the_data_alone():
    class Normalises(models.Net):
        def forward(self, x):
            return super().forward(x.sub_(0.5).mul_(2))

    model, x = models.randomised(Normalises(models.PostActivation)).double().eval(), models.images(2)
    with torch.no_grad():
        expected = model(x.clone())
    assert torch.equal(watched(model, x)[0], expected)
    assert torch.equal(x, models.images(2))
