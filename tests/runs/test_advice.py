import pytest
import torch
from helpers import models

import resnet_lesion as rl
from resnet_lesion.runs.advice import described, how_to_take, listed
from resnet_lesion.runs.data import batches

X, Y = models.data(4)
ONE_HOT = torch.nn.functional.one_hot(Y, models.N_CLASSES)
INDEX = torch.arange(4)


@pytest.mark.parametrize(
    ("batch", "contents"),
    [
        ({"pixel_values": X, "labels": Y}, "dict with 'pixel_values': float64 (4, 3, 6, 6) and 'labels': int64 (4,)"),
        ({"labels": Y, "image": X, "id": ["a"] * 4}, "dict with 'labels': .*, 'image': .* and 'id': list"),
        ((X, Y, INDEX), "tuple with float64 (4, 3, 6, 6), int64 (4,) and int64 (4,)"),
        ([INDEX, X, Y[:, None], Y], "list with int64 (4,), float64 (4, 3, 6, 6), int64 (4, 1) and int64 (4,)"),
        ({"x": X, "box": X[:, 0, :, 0], "y": Y}, "dict with 'x': .*, 'box': float64 (4, 6) and 'y': int64 (4,)"),
    ],
)
def test_the_line_that_is_said_mends_the_data(batch, contents):
    """What the error says is run as it stands; the data it makes holds these images and labels."""
    data = [batch, batch]
    expected = contents.replace("(", r"\(").replace(")", r"\)")
    with pytest.raises(TypeError, match=f"got a batch of type {expected}\\.") as caught:
        list(batches(data))
    line = str(caught.value).partition(" Pass ")[2].partition(", or a loader whose collate_fn")[0]
    for inputs, targets in batches(eval(line, {"data": data})):
        assert torch.equal(inputs, X)
        assert targets.tolist() in (Y.tolist(), INDEX.tolist())
    as_data = how_to_take("data", batch).removeprefix(" Pass ").removesuffix(".")
    assert torch.equal(next(batches(eval(as_data, {"data": batch})))[0], X)


@pytest.mark.parametrize(
    "batch", [[{"a": 1}], [(X, "labels")], [([X, X], Y)], [3], ["image.png"], [{"x": X}], [[X]], [{}]]
)
def test_what_cannot_be_mended_is_named(batch):
    with pytest.raises(TypeError, match=f"got a batch of type {type(batch[0]).__name__}") as caught:
        list(batches([*batch, (X, Y)]))
    assert "collate_fn" not in str(caught.value)


@pytest.mark.parametrize(
    "targets", [Y[:, None], ONE_HOT, ONE_HOT.double(), ONE_HOT > 0, ONE_HOT * 0.9 + 0.02, Y.double(), Y[:, None].half()]
)
def test_the_labels_that_are_said_are_the_classes(targets):
    with pytest.raises(ValueError, match=r"integer class labels \(N,\), got .* Pass targets") as caught:
        list(batches((X, targets)))
    line = str(caught.value).partition(" Pass ")[2].rstrip(".").removesuffix(", the likeliest class of each image")
    ((_, found),) = batches((X, eval(line, {"targets": targets})))
    assert found.tolist() == Y.tolist()


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (Y > 2, r"torch\.bool .* Pass targets\.long\(\)"),
        (torch.tensor([0.5, 1.0, 2.0, 3.0]), "Only classifiers can be analysed, and these are no classes"),
        (torch.full((4, 1), torch.nan), "these are no classes"),
        (torch.tensor([[1, 0, 1], [0, 0, 0], [1, 0, 0], [0, 1, 0]]), "one class: with several labels, or none"),
        (torch.zeros(4, 6, 6, dtype=torch.int64), "Each image needs one class"),
        (torch.tensor(3), r"One image, too, needs a batch: \(inputs\[None\], targets\[None\]\)"),
        (Y.to(torch.complex64), "Each image needs one class"),
    ],
)
def test_labels_that_are_no_classes(targets, message):
    with pytest.raises(ValueError, match=message):
        list(batches((X, targets)))


def test_whole_numbers_for_a_model_that_takes_them():
    class TakesBytes(models.Net):
        def forward(self, x):
            return super().forward(x / 255)

    model = models.randomised(TakesBytes(models.PostActivation)).double().eval()
    inputs = (X * 50 + 128).clamp(0, 255).byte()
    with pytest.raises(ValueError, match=r"torch.uint8 .*create_transform; if the model itself .* inputs\.float\(\)"):
        list(batches((inputs, Y)))
    found = rl.Deletion(model).analyze((inputs.float(), Y), show_progress=False)
    with torch.no_grad():
        assert int(found.baseline_correct) == int((model(inputs.double()).argmax(1) == Y).sum())


def test_values_are_listed_as_in_a_sentence():
    assert listed([3]) == "3"
    assert listed([3, 4]) == "3 and 4"
    assert listed([*range(9)]) == "0, 1, 2, 3, 4, 5 and 3 more"
    assert described(3) == "int"
