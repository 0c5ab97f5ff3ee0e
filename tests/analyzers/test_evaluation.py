import numpy as np
import pytest
import torch
import xarray as xr
from helpers import models, reference
from helpers.strategies import order_rows
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import resnet_lesion as rl

WHOLE = [0, 1, 2, 3, 4, 5]
ROWS = [WHOLE, [-1, 1, 2, 3, 4, 5], [0, -1, 2, 3, 4, 5], [2, 1, 0, 3, 5, 4], [1, 1, -1, -1, 4, 5]]


def in_batches(data, size):
    inputs, targets = data
    return [*zip(inputs.split(size), targets.split(size), strict=True)]


def evaluate(model, data, rows=ROWS, **options):
    return rl.evaluate(model, data, rows, show_progress=False, **options)


def check_equal(found, expected):
    """Counts must agree exactly, the loss up to rounding."""
    for name in ("correct", "agreement", "correct_by_class"):
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)
    np.testing.assert_allclose(found["loss"], expected["loss"], rtol=1e-12)


@pytest.mark.parametrize("name", ["post-activation", "pre-activation", "functional", "resnet basic", "resnetv2 basic"])
@given(data=st.data())
def test_counts_equal_those_of_a_naive_loop(name, data):
    case, model = models.CASES[name], models.build(name)
    inputs, targets = models.data(data.draw(st.integers(1, 9)), name)
    rows = data.draw(order_rows(reference.kinds(model, inputs)))
    batches = in_batches((inputs, targets), data.draw(st.sampled_from([1, 2, 4, 9])))
    size = data.draw(st.sampled_from([None, 1, 2, 3]))
    found = evaluate(model, batches, rows, by_class=True, perturbations_per_eval=size)
    check_equal(found, reference.counts(model, reference.logits(model, case, rows, inputs), inputs, targets))
    assert int(found.total) == len(inputs)


def test_single_precision_counts_equal_those_of_a_naive_loop():
    name, n = "resnet bottleneck se, avg_down, blur", 40
    case, model = models.CASES[name], models.build(name, torch.float32)
    inputs, targets = models.data(n, name, torch.float32)
    rows = np.where(np.eye(9, dtype=bool), -1, np.arange(9))
    found = evaluate(model, in_batches((inputs, targets), 16), rows)
    expected = reference.counts(model, reference.logits(model, case, rows, inputs), inputs, targets)
    assert found.correct.values.tolist() == expected["correct"].tolist()
    assert found.agreement.values.tolist() == expected["agreement"].tolist()
    assert len(set(expected["correct"].tolist())) > 3, "the lesions should differ for the test to mean something"


def test_baseline_is_the_whole_network():
    model, (inputs, targets) = models.build(), models.data(20)
    found = evaluate(model, (inputs, targets))
    with torch.no_grad():
        logits = model(inputs)
    assert int(found.baseline_correct) == int((logits.argmax(1) == targets).sum())
    assert float(found.baseline_error) == 1 - int(found.baseline_correct) / 20
    assert float(found.baseline_loss) == pytest.approx(float(nn.functional.cross_entropy(logits, targets)), rel=1e-12)
    assert found.error.values[0] == found.baseline_error
    assert found.agreement.values[0] == 1
    np.testing.assert_array_equal(found.error, 1 - found.correct / 20)
    assert (found.error_low <= found.error).all()
    assert (found.error <= found.error_high).all()


def test_classes_add_up():
    found = evaluate(models.build(), models.data(30), by_class=True)
    assert found.correct_by_class.dims == ("lesion", "class")
    np.testing.assert_array_equal(found.correct_by_class.sum("class"), found.correct)
    assert found.total_by_class.values.tolist() == np.bincount(models.labels(30), minlength=5).tolist()
    assert (found.correct_by_class <= found.total_by_class).all()
    assert "correct_by_class" not in evaluate(models.build(), models.data(3))


class Stream(torch.utils.data.IterableDataset):
    def __init__(self, batches):
        self.batches = batches

    def __iter__(self):
        return iter(self.batches)


@pytest.mark.parametrize("size", [1, 3, 4, 7, 100])
def test_data_of_any_form_gives_the_same(size):
    model, data = models.build(), models.data(10)
    batches = in_batches(data, size)
    first = evaluate(model, batches)
    forms = {
        "tuple of batches": tuple(batches),
        "lists in a list": [[*batch] for batch in batches],
        "numpy": [(x.numpy(), y.numpy()) for x, y in batches],
        "generator": (batch for batch in batches),
        "DataLoader": DataLoader(TensorDataset(*data), batch_size=size),
        "IterableDataset": DataLoader(Stream(batches), batch_size=None),
        "int32 labels": [(x, y.int()) for x, y in batches],
        "empty batches between": [batch for pair in batches for batch in (pair, (pair[0][:0], pair[1][:0]))],
    }
    for form, given_data in forms.items():
        found = evaluate(model, given_data)
        assert found.attrs["data"].startswith("10 images of shape 3x6x6 from "), form
        for attr in ("created", "data"):
            first.attrs[attr] = found.attrs[attr]
        xr.testing.assert_identical(found, first)
    together = evaluate(model, data).drop_vars(["loss", "baseline_loss"])
    xr.testing.assert_equal(together, first.drop_vars(["loss", "baseline_loss"]))


@pytest.mark.parametrize("rows", [ROWS, [[-1] * 6], [WHOLE, WHOLE]])
def test_block_evaluations_count_what_is_computed(rows):
    model, n = models.build(), 4
    computed = []
    for layer in reference.layers(model):
        first = model.get_submodule(layer).conv1
        first.register_forward_hook(lambda _module, args, _output: computed.append(len(args[0])))
    found = evaluate(model, models.data(n), rows)
    assert found.attrs["block_evaluations"] == reference.block_evaluations(rows)
    assert found.attrs["naive_block_evaluations"] == (np.array(rows) >= 0).sum()
    # the baseline comes on top, and the six blocks on which the network is proved: 5 images, one alone, 3 in 4 rows
    assert sum(computed) == n * reference.block_evaluations([WHOLE, *rows]) + 6 * (5 + 1 + 4)


def test_block_evaluations_of_single_lesions():
    # n (n - 1) / 2 prefixes are shared with the whole network when each block is deleted alone
    n = 6
    found = rl.Deletion(models.build()).analyze(models.data(2), show_progress=False)
    assert found.attrs["naive_block_evaluations"] == n * (n - 1)
    assert found.attrs["block_evaluations"] == (n - 1) + n * (n - 1) // 2


def test_block_evaluations_of_passes_of_their_own():
    found = evaluate(models.build(), models.data(2), ROWS, perturbations_per_eval=1)
    assert (
        found.attrs["block_evaluations"]
        == found.attrs["naive_block_evaluations"]
        == sum(i >= 0 for r in ROWS for i in r)
    )


def test_order_is_stored():
    found = evaluate(models.build(), models.data(2))
    assert found.order.dims == ("lesion", "position")
    assert found.order.values.tolist() == ROWS
    assert found.layer.dims == ("position",)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_data_is_moved_to_the_models_dtype(dtype):
    found = evaluate(models.build(dtype=dtype), models.data(4))
    assert found.attrs["dtype"] == str(dtype).removeprefix("torch.")
    assert np.isfinite(found.loss).all()


def test_inference_mode_changes_nothing():
    model, data = models.build(), models.data(5)
    expected = evaluate(model, data)
    with torch.inference_mode():
        inside = models.data(5)
        found = evaluate(model, inside)
    for result in (found, evaluate(model, inside)):
        xr.testing.assert_equal(result, expected)


def test_autocast_gives_what_a_naive_loop_gives():
    case, model = models.CASES["post-activation"], models.build(dtype=torch.float32)
    inputs, targets = models.data(20, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = evaluate(model, (inputs, targets))
        scores = reference.logits(model, case, ROWS, inputs)
        expected = reference.counts(model, scores, inputs, targets)
    assert scores.dtype == torch.bfloat16
    assert found.correct.values.tolist() == expected["correct"].tolist()
    np.testing.assert_allclose(found.loss, expected["loss"], rtol=1e-5)
    assert found.attrs["autocast"] == "bfloat16"
    assert evaluate(models.build(), models.data(2)).attrs["autocast"] == "None"


def test_memory_format_changes_nothing():
    model, (inputs, targets) = models.build(), models.data(8)
    expected = evaluate(model, (inputs, targets))
    channels_last = {"memory_format": torch.channels_last}
    found = evaluate(model.to(**channels_last), (inputs.to(**channels_last), targets))
    xr.testing.assert_allclose(found, expected, rtol=1e-12)


def test_a_progress_bar_on_demand(capsys):
    evaluate(models.build(), models.data(2))
    assert capsys.readouterr() == ("", "")
    rl.evaluate(models.build(), models.data(2), ROWS)
    assert "2/2" in capsys.readouterr().err


def test_gradient_checkpointing_does_not_get_in_the_way():
    name = "resnet basic"
    model, data = models.build(name), models.data(3, name)
    rows = np.where(np.eye(9, dtype=bool), -1, np.arange(9))
    expected = evaluate(model, data, rows)
    model.set_grad_checkpointing(True)
    xr.testing.assert_equal(evaluate(model, data, rows), expected)


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        ([WHOLE[:5]], ValueError, r"\(n_lesions, 6\), a column per block, got shape \(1, 5\)"),
        (WHOLE, ValueError, r"\(n_lesions, 6\).*got shape \(6,\)"),
        ([], ValueError, r"\(n_lesions, 6\).*got shape \(0,\)"),
        ([WHOLE, WHOLE[:5]], ValueError, "rows of 6 entries each, got rows of different lengths"),
        ([[0.0, 1, 2, 3, 4, 5]], TypeError, "expected integer order rows, got float64"),
        ([[True] * 6], TypeError, "expected integer order rows, got bool"),
        ([[0, 1, 2, 3, 4, 6]], ValueError, "from 0 to 5, or -1 for a deleted block, got 6"),
        ([[0, 1, 2, 3, 4, -2]], ValueError, "from 0 to 5, or -1 for a deleted block, got -2"),
        (
            [[3, 1, 2, 3, 4, 5]],
            ValueError,
            r"block 'stage2.0' \(4x6x6 to 6x3x3\) cannot run in the place of 'stage1.0' \(4x6x6 to 4x6x6\): "
            "reorder blocks of the same shapes only",
        ),
        ([[0, 1, 4, 3, 2, 5]], ValueError, "block 'stage2.1' .* cannot run in the place of 'stage1.2'"),
    ],
)
def test_order_rows_that_do_not_fit_are_refused(rows, error, message):
    with pytest.raises(error, match=message):
        evaluate(models.build(), models.data(2), rows)


X, Y = models.data(4)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ((X, Y + 5), "labels from 0 to 4, as the model has 5 outputs, got [-0-9, ]+ and [-0-9]+ in images number"),
        ((X, Y - 5), "labels from 0 to 4, as the model has 5 outputs, got [-0-9, ]+ and [-0-9]+ in images number"),
        ([(X, Y), (X, Y + 5)], "got [-0-9, ]+ and [-0-9]+ in images number"),
        ((X.where(X < 1, torch.nan), Y), "expected finite inputs, got NaN or infinity"),
        ([(X, Y), (X / 0, Y)], "expected finite inputs, got NaN or infinity"),
        ([(X, Y), (X[..., 1:], Y)], r"every batch of inputs to be \(N, 3, 6, 6\) like the first, got \(4, 3, 6, 5\)"),
    ],
)
def test_data_that_does_not_fit_the_model_is_refused(data, message):
    for analyze in (
        lambda: evaluate(models.build(), data),
        lambda: rl.Deletion(models.build()).analyze(data, show_progress=False),
        lambda: rl.Reorder(models.build()).analyze(data, n_swaps=1, show_progress=False),
    ):
        with pytest.raises(ValueError, match=message):
            analyze()


def test_data_that_the_model_does_not_take_is_refused_by_the_model():
    with pytest.raises(RuntimeError, match="to have 3 channels, but got 2 channels") as caught:
        evaluate(models.build(), (X[:, :2], Y))
    (note,) = caught.value.__notes__
    assert "inputs of shape (5, 2, 6, 6)" in note


def test_data_on_the_cpu_is_refused_at_once():
    def batches():
        yield X * torch.nan, Y
        raise AssertionError("went on after NaN")

    with pytest.raises(ValueError, match="expected finite inputs"):
        evaluate(models.build(), batches())


class ReturnsATuple(models.Net):
    def forward(self, x):
        return super().forward(x), x


class ReturnsAMap(models.Net):
    def forward(self, x):
        return super().forward(x)[:, :, None]


class ReturnsALoss(models.Net):
    def forward(self, x):
        return super().forward(x).sum()


class RunsABlockTwice(models.Net):
    def forward(self, x):
        return self.head(self.stage2(self.stage1[2](self.stage1(self.stem(x)))).mean((2, 3)))


class RunsBackwards(models.Net):
    def forward(self, x):
        return self.head(self.stage2(self.stage1[::-1](self.stem(x))).mean((2, 3)))


class LeavesABlockOut(models.Net):
    def forward(self, x):
        return self.head(self.stage2(self.stage1[1:](self.stem(x))).mean((2, 3)))


class CallsByKeyword(models.Net):
    def forward(self, x):
        return self.head(self.stage2(self.stage1[2](x=self.stage1[:2](self.stem(x)))).mean((2, 3)))


@pytest.mark.parametrize(
    ("net", "error", "message"),
    [
        (ReturnsATuple, rl.AdapterError, "one tensor with a row for each of 5 inputs, got tuple"),
        (ReturnsALoss, rl.AdapterError, r"one tensor with a row for each of 5 inputs, got \(\)"),
        (ReturnsAMap, ValueError, r"expected class scores \(N, classes\) from the model, got \(5, 5, 1\)"),
        (RunsABlockTwice, rl.AdapterError, "block 'stage1.2' ran 2 times in one forward pass; expected once"),
        (LeavesABlockOut, rl.AdapterError, "block 'stage1.0' ran 0 times in one forward pass; expected once"),
        (RunsBackwards, rl.AdapterError, r"ran in the order \['stage1.2', .*; expected the order of their names"),
        (CallsByKeyword, rl.AdapterError, r"'stage1.2' to be called with one tensor, got 0 positional .* \['x'\]"),
    ],
)
def test_models_that_lesions_do_not_suit_are_refused(net, error, message):
    with pytest.raises(error, match=message):
        evaluate(net(models.PostActivation).double(), models.data(2))


class Overwrites(nn.Module):
    """Its first ReLU overwrites the block's input, and so what the shortcut hands on."""

    def __init__(self, c_in, c_out, stride):
        super().__init__()
        self.relu = nn.ReLU(inplace=True)
        self.conv = nn.Conv2d(c_in, c_out, 3, stride, 1)
        self.projection = nn.Conv2d(c_in, c_out, 1, stride)

    def forward(self, x):
        return self.conv(self.relu(x)) + self.projection(x)


@rl.register_adapter(Overwrites)
def overwrites(block):
    return rl.Branch("relu", "conv", shortcut="projection")


def test_a_block_that_overwrites_its_input_is_refused():
    model, data = models.Net(Overwrites).double(), models.data(2)
    message = r"block 'stage1.0' \(Overwrites\) overwrites its input"
    with pytest.raises(rl.AdapterError, match=message):
        evaluate(model, data, [[-1, 1, 2, 3, 4, 5]], perturbations_per_eval=1)
    with pytest.raises(rl.AdapterError, match=message):
        rl.wrap(model).verify(data[0])


def test_where_a_lesion_makes_numbers_overflow_nothing_is_predicted():
    """argmax would take the first NaN, class 0, for the prediction."""
    model, rows = models.build().eval(), [WHOLE, *np.where(np.eye(6, dtype=bool), -1, WHOLE).tolist()]
    network, sizes = rl.wrap(model), []
    with network.blocks[-1].module.register_forward_hook(lambda _m, _a, y: sizes.append(float(y.abs().amax()))):
        reference.logits(model, models.CASES["post-activation"], rows, X)
    bound = 1.001 * sizes[0]
    assert max(sizes) > bound
    network.blocks[-1].module.register_forward_hook(
        lambda _m, _a, y: y.where(y.abs().flatten(1).amax(1)[:, None, None, None] <= bound, torch.nan)
    )
    outputs = reference.logits(model, models.CASES["post-activation"], rows, X)
    expected = ((outputs.argmax(2) == 0) & ~outputs.isnan().any(2)).sum(1)
    assert outputs.isnan().any()
    result = rl.evaluate(model, (X, torch.zeros_like(Y)), rows, show_progress=False)
    assert result.correct.values.tolist() == expected.tolist()


def test_a_network_that_predicts_nothing_is_refused():
    network = rl.wrap(models.build())
    with torch.no_grad():
        next(network.blocks[2].module.parameters()).fill_(torch.nan)
    with pytest.raises(
        ValueError, match=r"expected weights that are numbers, got NaN or infinity in 'stage1\.2\.conv1\.weight'"
    ):
        evaluate(network, models.data(4), [WHOLE])


@pytest.mark.parametrize("what", [torch.nan, torch.inf])
def test_images_for_which_the_network_predicts_nothing_are_counted_and_said(what):
    model, (x, _) = models.build().eval(), models.data(12)
    x[-2:] *= 1e6  # behind the images that are tried first
    outputs = model(x).detach()
    y, bound = outputs.argmax(1), 2 * outputs[:-2].abs().max()
    assert (outputs[-2:].abs().amax(1) > bound).all()
    model.register_forward_hook(lambda _m, _x, y: y.where(y.abs().amax(1, keepdim=True) < bound, what))
    with pytest.warns(UserWarning, match="the whole network gives NaN or infinity for 2 of 12 images"):
        result = rl.evaluate(model, (x, y), [WHOLE], show_progress=False)
    assert int(result.baseline_correct) == 10
