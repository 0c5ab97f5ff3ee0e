import pytest
import timm
import torch
from helpers import models
from torch import nn

import resnet_lesion as rl


@pytest.mark.parametrize(
    ("name", "n_blocks", "classes"),
    [
        ("resnet18", 8, ("BasicBlock",)),
        ("resnetv2_50", 16, ("PreActBottleneck",)),
        ("vit_tiny_patch16_224", 24, ("Block",)),
        ("cifar_preactresnet110", 54, ("PreActBasic",)),
    ],
)
def test_covered(name, n_blocks, classes):
    answer = rl.supported(name)
    assert (answer.covered, answer.path_gradients, answer.n_blocks, answer.block_classes, answer.reason) == (
        True,
        True,
        n_blocks,
        classes,
        "",
    )
    assert answer.name == name


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("densenet121", "concatenates what its layers compute"),
        ("dla34", "concatenates the outputs of several blocks"),
        ("dpn68", "adds one part of each branch and concatenates the other"),
        ("hrnet_w18_small", "runs rows of blocks in parallel"),
        ("rexnet_100", "adds its input to the first channels"),
        ("inception_v3", "InceptionV3 has no residual block that an adapter knows. Its own classes: "),
    ],
)
def test_not_covered(name, reason):
    answer = rl.supported(name)
    assert not answer.covered
    assert not answer.path_gradients
    assert reason in answer.reason
    assert "Register an adapter" not in answer.reason
    with pytest.raises(TypeError), torch.device("meta"):
        rl.wrap(timm.create_model(name))


@pytest.mark.parametrize(("name", "reason"), [("cspresnet50", "blocks in a row"), ("cifar_vgg15", "has no skip")])
def test_covered_without_path_gradients(name, reason):
    answer = rl.supported(name)
    assert answer.covered
    assert not answer.path_gradients
    assert reason in answer.reason


@pytest.mark.parametrize("case", models.CASES)
def test_a_model_of_ones_own_is_left_as_it_is(case):
    model = models.build(case).train()
    before = models.Snapshot(model)
    answer = rl.supported(model, input_size=models.CASES[case].shape)
    before.check()
    assert answer.covered
    assert answer.path_gradients
    assert answer.n_blocks == len(rl.wrap(model))
    assert rl.supported(rl.wrap(model), models.CASES[case].shape) == answer


def test_its_weights_are_not_copied():
    model = models.build()
    seen = []
    handle = model.register_forward_hook(lambda _module, args, _output: seen.append(args[0].device.type))
    assert rl.supported(model).covered
    handle.remove()
    assert set(seen) == {"meta"}


def test_what_cannot_be_wrapped_is_not_covered():
    assert rl.supported(torch.compile(timm.create_model("resnet18"))).covered
    answer = rl.supported(nn.DataParallel(timm.create_model("resnet18")))
    assert not answer.covered
    assert "Pass its .module" in answer.reason
    answer = rl.supported(models.build(), input_size=(4, 32, 32))
    assert not answer.covered
    assert answer.reason.startswith("RuntimeError: ")
    assert answer.reason.endswith("This came up as Net ran on inputs of shape (2, 4, 32, 32).")


def test_a_model_that_raises_whatever_error_is_not_covered():
    class Fails(models.Net):
        def forward(self, x):
            return {}[x.shape]

    answer = rl.supported(Fails(models.PostActivation))
    assert not answer.covered
    assert answer.reason.startswith("KeyError: torch.Size([2, 3, 224, 224]) This came up as Fails ran on")


def test_a_name_with_a_tag_and_wrong_ones():
    assert rl.supported("resnet18.a1_in1k").n_blocks == 8
    with pytest.raises(ValueError, match=r"no model 'resnet81'. Did you mean 'resnet18'"):
        rl.supported("resnet81")
    with pytest.raises(TypeError, match=r"expected a torch.nn.Module or the name of a timm model, got int"):
        rl.supported(18)


def test_many_models():
    names = [answer.name for answer in rl.supported_models("resnet?8")]
    assert names == timm.list_models("resnet?8")
    with pytest.raises(ValueError, match="a pattern such as 'resnet\\*', got 'nothing\\*'"):
        next(rl.supported_models("nothing*"))


@pytest.mark.sweep
def test_processes_give_the_same_answers():
    pattern = "resnet[12][08]*"
    assert list(rl.supported_models(pattern, workers=2)) == list(rl.supported_models(pattern, workers=1))


def test_a_model_that_folds_something_into_its_batch_is_not_covered():
    """Its blocks have several rows for each image, where those of different lesions could not be told apart."""
    answer = rl.supported("mobilevit_xxs")
    assert not answer.covered
    assert "the model changes its batch dimension" in answer.reason
    with pytest.raises(rl.AdapterError, match=r"expected 2 rows at block '.*', one for each image, got 8"):
        rl.wrap(timm.create_model("mobilevit_xxs").eval()).trace(torch.zeros(2, 3, 64, 64))


def test_a_model_that_needs_values_while_it_is_made_is_asked_about_too(monkeypatch):
    """As many of timm's before 1.0.21."""
    create, expected = timm.create_model, rl.supported("resnet18")

    def needs_values(name):
        assert torch.linspace(0, 1, 3)[-1].item() == 1
        return create(name)

    monkeypatch.setattr(timm, "create_model", needs_values)
    assert rl.supported("resnet18") == expected
