import numpy as np
import pytest
import torch
import xarray as xr
from helpers import models
from torch.utils.data import DataLoader, TensorDataset

import resnet_lesion as rl
from resnet_lesion.runs.data import as_plain, batches, defects, describe, length, refuse_one_shot

X, Y = models.data(4)


def test_one_tuple_is_one_batch():
    ((inputs, targets),) = batches((X, Y))
    assert inputs is X
    assert targets.tolist() == Y.tolist()


def test_a_list_of_two_batches_is_two_batches():
    assert [len(inputs) for inputs, _ in batches([(X, Y), [X[:1], Y[:1]]])] == [4, 1]
    assert [len(inputs) for inputs, _ in batches(((X, Y), (X[:1], Y[:1])))] == [4, 1]


def test_a_list_of_inputs_and_targets_is_one_batch():
    loader = DataLoader(TensorDataset(X, Y), batch_size=3)
    batch = next(iter(loader))
    assert isinstance(batch, list)
    ((inputs, targets),) = batches(batch)
    assert torch.equal(inputs, X[:3])
    assert torch.equal(targets, Y[:3])
    assert length(batch) == 3


@pytest.mark.parametrize("nothing", [None, (X[:0], Y[:0]), [torch.tensor([]), torch.tensor([])], ([], [])])
def test_a_batch_of_which_nothing_is_left_is_passed_over(nothing):
    assert [len(inputs) for inputs, _ in batches([nothing, (X, Y), nothing, (X[:1], Y[:1])])] == [4, 1]
    with pytest.raises(ValueError, match="at least one image, got empty data"):
        list(batches([nothing, nothing]))


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
        (
            {"image": X, "label": Y},
            TypeError,
            TYPES + r"dict with 'image': float64 .* Pass \(data\['image'\], data\['label'\]\)",
        ),
        (X.numpy(), TypeError, TYPES + r"ndarray float64 \(4, 3, 6, 6\)\. The targets are missing"),
        (TensorDataset(X, Y), TypeError, TYPES + "TensorDataset. Give it to a torch.utils.data.DataLoader"),
        ([{"image": X, "label": Y}], TypeError, TYPES + "a batch of type dict"),
        ([X, X, X], TypeError, TYPES + r"a batch of type Tensor float64 \(4, 3, 6, 6\)\. The targets are missing"),
        ([(X, Y, Y)], TypeError, TYPES + "a batch of type tuple"),
        ((X, Y.tolist()), TypeError, TYPES + r"tuple .* list\. Pass \(inputs, torch\.as_tensor\(targets\)\)"),
        ((X.numpy(), np.array(list("abcd"))), TypeError, TYPES + "an array of <U1, which are no numbers"),
        ([(X, 3)], TypeError, TYPES + "a batch of type tuple"),
        ([], ValueError, "at least one image, got empty data"),
        ((X[:0], Y[:0]), ValueError, "at least one image, got empty data"),
        ([(X[:0], Y[:0])] * 2, ValueError, "at least one image, got empty data"),
        (iter([]), ValueError, "A generator can be iterated over only once"),
        ((X, Y[:3]), ValueError, "as many targets as inputs, got 4 inputs and 3 targets"),
        (
            (X[0], Y[:1]),
            ValueError,
            r"got 3 inputs and 1 targets\. One image, too, needs .*\(inputs\[None\], targets\)",
        ),
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


@pytest.mark.parametrize(
    "make",
    [
        lambda model: rl.Deletion(model).analyze,
        lambda model: rl.PathGradient(model).analyze,
    ],
)
def test_images_and_labels_that_do_not_fit_are_named(make):
    model, (inputs, targets) = models.build(dtype=torch.float16), models.data(6, dtype=torch.float32)
    beyond, labels = inputs.clone(), torch.tensor([0, 255, -1, -1, 1, -100])
    beyond[[3, 5], 0, 0, 0] = 1e6
    batches = [(beyond[:2], targets[:2]), (beyond[2:], targets[2:])]
    both, first = "in images number 3 and 5", "in image number 3"
    for data, how, where in (((beyond, targets), {}, both), (batches, {}, both), (batches, {"shard": (1, 2)}, first)):
        with pytest.raises(ValueError, match=rf"more than the model's torch\.float16 can hold \(65504\) {where}\."):
            make(model)(data, show_progress=False, **how)
    with pytest.raises(
        ValueError, match=r"from 0 to 4, .* got -1 and 255 in images number 1, 2 and 3\..* the label -100"
    ):
        make(model)((inputs, labels), show_progress=False)
    with pytest.raises(ValueError, match="in image number 4"):
        make(model)((inputs, targets.where(torch.arange(6) != 4, 5)), show_progress=False)


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
        (X.where(X < 1, 65504), Y, [False, False]),
        (X.where(X < 1, -65520), Y, [True, False]),
        (X.float().where(X < 1, 1e6), Y, [True, False]),
        (X / 0, Y, [True, False]),
        (X * torch.nan, Y, [True, False]),
        (X, Y - 5, [False, True]),
        (X, Y + 5, [False, True]),
        (X * torch.nan, Y + 5, [True, True]),
    ],
)
def test_defects(inputs, targets, expected):
    assert defects(inputs, targets, models.N_CLASSES, torch.float16).tolist() == expected


def test_defects_where_images_and_labels_are_on_different_devices():
    assert defects(X.to("meta"), Y, models.N_CLASSES, torch.float64).device.type == "meta"


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


class Image(torch.Tensor):
    """A subclass that takes part in nothing but its own operations, as fastai's ``TensorImage`` does."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if not all(issubclass(cls, t) for t in types):
            return NotImplemented
        return super().__torch_function__(func, types, args, kwargs)


class Category(Image):
    """Its label."""


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.numpy(),
        lambda x: x.numpy().astype(x.numpy().dtype.newbyteorder(">")),
        lambda x: np.ascontiguousarray(x.numpy()[::-1])[::-1],
        lambda x: np.broadcast_to(x.numpy(), x.shape),
        lambda x: xr.DataArray(x.numpy()),
        lambda x: x.as_subclass(Image),
        lambda x: x.as_subclass(Category if x.ndim == 1 else Image),
        lambda x: x,
    ],
    ids=["numpy", "big-endian", "negative strides", "read-only", "xarray", "a subclass", "two subclasses", "plain"],
)
@pytest.mark.filterwarnings("error")
def test_arrays_of_any_kind_are_plain_tensors(change):
    data = change(X), change(Y)
    ((inputs, targets),) = batches(data)
    assert (type(inputs), type(targets)) == (torch.Tensor, torch.Tensor)
    assert torch.equal(inputs, X)
    assert torch.equal(targets, Y)
    model = models.build()
    expected = rl.Deletion(model).analyze((X, Y), show_progress=False)
    np.testing.assert_array_equal(rl.Deletion(model).analyze(data, show_progress=False).loss, expected.loss)


def test_what_torch_can_share_is_not_copied():
    for array in (X.numpy(), np.broadcast_to(X.numpy(), X.shape), X.as_subclass(Image)):
        assert as_plain(array).data_ptr() == X.data_ptr()
