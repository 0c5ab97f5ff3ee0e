import numpy as np
import pytest
import torch
from helpers import models
from torch.utils.data import DataLoader, TensorDataset

import resnet_lesion as rl
from resnet_lesion.runs.data import batches, defects, describe, length, refuse_one_shot

X, Y = models.data(4)


def test_one_tuple_is_one_batch():
    ((inputs, targets),) = batches((X, Y))
    assert inputs is X
    assert targets.tolist() == Y.tolist()


def test_a_list_of_two_batches_is_two_batches():
    assert [len(inputs) for inputs, _ in batches([(X, Y), [X[:1], Y[:1]]])] == [4, 1]
    assert [len(inputs) for inputs, _ in batches(((X, Y), (X[:1], Y[:1])))] == [4, 1]


def test_labels_become_int64():
    for dtype in (torch.uint8, torch.int16, torch.int32):
        ((_, targets),) = batches((X, Y.to(dtype)))
        assert targets.dtype == torch.int64


TYPES = r"expected data as a tuple \(inputs, targets\) of tensors or an iterable of such batches, got "


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (X, TypeError, TYPES + "Tensor"),
        ("imagenet", TypeError, TYPES + "str"),
        (None, TypeError, TYPES + "NoneType"),
        (3, TypeError, TYPES + "int"),
        ({"image": X, "label": Y}, TypeError, TYPES + "dict"),
        (TensorDataset(X, Y), TypeError, TYPES + "TensorDataset. Give it to a torch.utils.data.DataLoader"),
        ([{"image": X, "label": Y}], TypeError, TYPES + "a batch of type dict"),
        ([X, Y], TypeError, TYPES + "a batch of type Tensor"),
        ([(X, Y, Y)], TypeError, TYPES + "a batch of type tuple"),
        ((X, Y.tolist()), TypeError, TYPES + "a batch of type Tensor"),
        ([(X, 3)], TypeError, TYPES + "a batch of type tuple"),
        ([], ValueError, "at least one image, got empty data"),
        ((X[:0], Y[:0]), ValueError, "at least one image, got empty data"),
        ([(X[:0], Y[:0])] * 2, ValueError, "at least one image, got empty data"),
        (iter([]), ValueError, "A generator can be iterated over only once"),
        ((X, Y[:3]), ValueError, "as many targets as inputs, got 4 inputs and 3 targets"),
        ((X[:3], Y), ValueError, "as many targets as inputs, got 3 inputs and 4 targets"),
        ((X.mul(255).byte(), Y), ValueError, r"floating-point inputs .*got torch.uint8 \(4, 3, 6, 6\).*transform"),
        ((X[:, 0, 0, 0], Y), ValueError, r"floating-point inputs .*got torch.float64 \(4,\)"),
        ((X, Y.double()), ValueError, r"integer class labels \(N,\), got torch.float64 \(4,\)"),
        ((X, Y > 2), ValueError, r"integer class labels \(N,\), got torch.bool"),
        ((X, torch.eye(4)), ValueError, r"integer class labels \(N,\), got torch.float32 \(4, 4\)"),
        ((X, Y[:, None]), ValueError, r"integer class labels \(N,\), got torch.int64 \(4, 1\)"),
    ],
)
def test_data_of_another_kind_is_refused(data, error, message):
    with pytest.raises(error, match=message):
        list(batches(data))
    if not isinstance(data, type(iter([]))):
        with pytest.raises(error, match=message):
            rl.Deletion(models.build()).analyze(data, show_progress=False)


def test_a_generator_works_once():
    generator = (batch for batch in [(X, Y)])
    model = models.build()
    assert rl.evaluate(model, generator, [range(6)], show_progress=False).total == 4
    with pytest.raises(ValueError, match=r"empty data\. A generator can be iterated over only once"):
        rl.evaluate(model, generator, [range(6)], show_progress=False)


def test_a_one_shot_iterator_is_refused_where_several_passes_are_needed():
    for one_shot in ((batch for batch in [(X, Y)]), iter([(X, Y)])):
        with pytest.raises(
            TypeError, match=r"several times, got the one-shot .* Pass the loader itself, or list\(data\)"
        ):
            refuse_one_shot(one_shot)
        with pytest.raises(TypeError, match="one-shot"):
            rl.study(models.build(), one_shot, show_progress=False)
    for data in ((X, Y), [(X, Y)], DataLoader(TensorDataset(X, Y))):
        refuse_one_shot(data)


@pytest.mark.parametrize(
    ("inputs", "targets", "expected"),
    [
        (X, Y, [False, False]),
        (X / 0, Y, [True, False]),
        (X * torch.nan, Y, [True, False]),
        (X, Y - 5, [False, True]),
        (X, Y + 5, [False, True]),
        (X * torch.nan, Y + 5, [True, True]),
    ],
)
def test_defects(inputs, targets, expected):
    assert defects(inputs, targets, models.N_CLASSES).tolist() == expected


def test_defects_where_images_and_labels_are_on_different_devices():
    assert defects(X.to("meta"), Y, models.N_CLASSES).device.type == "meta"


def test_length_if_known():
    assert length((X, Y)) == 4
    assert length(DataLoader(TensorDataset(X, Y), batch_size=3)) == 4
    assert length([(X, Y), (X[:1], Y[:1])]) == 5
    assert length([{"image": X}]) is None
    assert length(iter([(X, Y)])) is None
    assert length(batch for batch in [(X, Y)]) is None


def test_a_description_names_the_source():
    assert describe((X, Y), 4, (3, 6, 6)) == "4 images of shape 3x6x6 from tuple"
    assert describe(DataLoader(TensorDataset(X, Y)), 4, (3, 6, 6)) == "4 images of shape 3x6x6 from TensorDataset"


def test_numpy_arrays_are_tensors():
    ((inputs, targets),) = batches((X.numpy(), Y.numpy()))
    assert isinstance(inputs, torch.Tensor)
    np.testing.assert_array_equal(targets, Y)
