import pytest
import timm
import torch
from helpers import models
from torch import nn

import resnet_lesion as rl
from resnet_lesion.network.classes import number_of_classes

OUTPUTS = torch.zeros(3, 8)


class Named(nn.Module):
    def __init__(self, num_classes=None, **children):
        super().__init__()
        if num_classes is not None:
            self.num_classes = num_classes
        for name, child in children.items():
            self.add_module(name, child)


@pytest.mark.parametrize(
    "model",
    [
        Named(),
        Named(8),
        Named(fc=nn.Linear(4, 8)),
        Named(classifier=nn.Sequential(nn.Linear(4, 8))),
        Named(head=nn.Identity(), classifier=nn.Linear(4, 8)),
        Named(8, head=nn.Identity()),  # it says so itself
        timm.create_model("resnet18", num_classes=8),
        timm.create_model("vit_tiny_patch16_224", num_classes=8),
    ],
)
def test_outputs_of_a_classifier_are_counted(model):
    assert number_of_classes(model, OUTPUTS) == 8


def test_a_head_of_ones_own_is_a_classifier():
    model = timm.create_model("resnet18")
    model.fc = nn.Linear(512, 8)
    assert model.num_classes == 1000
    assert number_of_classes(model, OUTPUTS) == 8


@pytest.mark.parametrize(
    ("model", "outputs", "words"),
    [
        (timm.create_model("resnet18", num_classes=0), OUTPUTS, "num_classes=0: these are features"),
        (Named(1000), OUTPUTS, "got 8 outputs of a model with num_classes=1000: these are features"),
        (Named(fc=nn.Identity()), OUTPUTS, "Identity as its head: these are features"),
        (Named(), torch.zeros(3, 1), r"got \(3, 1\)\. Let it return two"),
        (Named(), torch.zeros(3, 8, 2), r"got \(3, 8, 2\)\.$"),
        (Named(), torch.zeros(3), r"got \(3,\)\.$"),
    ],
)
def test_what_cannot_be_classes_is_refused(model, outputs, words):
    with pytest.raises(ValueError, match=words):
        number_of_classes(model, outputs)


def test_no_analysis_counts_features():
    model = models.build()
    model.head, model.num_classes = nn.Identity(), 0
    inputs, targets = models.data(4)
    for analyse in (
        lambda: rl.Deletion(model).analyze((inputs, targets), show_progress=False),
        lambda: rl.Reorder(model).analyze((inputs, targets), n_swaps=1, show_progress=False),
        lambda: rl.evaluate(model, (inputs, targets), [[-1] * 6], show_progress=False),
        lambda: rl.PathGradient(model).analyze((inputs, targets), show_progress=False),
        lambda: rl.BlockStatistics(model).analyze((inputs, targets), show_progress=False),
        lambda: rl.study(model, (inputs, targets), show_progress=False),
    ):
        with pytest.raises(ValueError, match="these are features"):
            analyse()
    assert rl.Deletion(model).attribute(inputs, target=3).shape == (4, 6), "a score may be any output"
