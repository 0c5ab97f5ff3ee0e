import pytest
from helpers import models
from timm.models import resnet
from torch import nn

import resnet_lesion as rl
from resnet_lesion import checks
from resnet_lesion.blocks import registry as branch


class Block(nn.Module):
    def __init__(self, residual=True):
        super().__init__()
        self.body, self.residual = nn.Identity(), residual

    def forward(self, x):
        return x + self.body(x) if self.residual else self.body(x)


@rl.register_adapter(Block)
def adapter(block):
    return rl.Branch(entry="body", exit="body") if block.residual else None


class Same(Block):
    pass


class Different(Block):
    def forward(self, x):
        return 2 * super().forward(x)


class Described(Different):
    pass


@rl.register_adapter(Described)
def described(block):
    return rl.Branch(entry="body", exit="body", scale=lambda r: 2 * r, shortcut=lambda x: 2 * x)


def test_a_subclass_with_the_same_forward_is_known():
    assert rl.find_branch(Same()) == rl.Branch(entry="body", exit="body")


def test_a_subclass_with_a_forward_of_its_own_is_refused():
    with pytest.raises(
        TypeError, match=r"Different overrides the forward of .*Block,.* Register an adapter .* see docs"
    ):
        rl.find_branch(Different())


def test_a_subclass_with_an_adapter_of_its_own_is_known():
    assert rl.find_branch(Described()).scale is not None


def test_an_instance_without_a_skip_is_no_block():
    assert rl.find_branch(Block(residual=False)) is None
    model = nn.Sequential(Block(), Block(residual=False), Block())
    assert rl.wrap(model).layers == ("0", "2")


def test_an_unknown_class_is_named_with_those_known():
    with pytest.raises(
        TypeError,
        match=r"got torch\.nn\.modules\.linear\.Linear\. Register .*see .*Known .*: .*timm\.models\.resnet\.BasicBlock",
    ):
        rl.find_branch(nn.Linear(1, 1))


def test_is_block():
    assert branch.is_block(Block())
    assert branch.is_block(Different())
    assert not branch.is_block(nn.Identity())


def test_an_adapter_is_handed_back_and_serves_several_classes():
    class First(nn.Module):
        pass

    class Second(nn.Module):
        pass

    def both(block):
        return rl.Branch(entry="a", exit=type(block).__name__)

    assert rl.register_adapter(First, Second)(both) is both
    assert rl.find_branch(First()).exit == "First"
    assert rl.find_branch(Second()).exit == "Second"


@pytest.mark.parametrize("wrong", [(), ("Block",), (Block, nn.Linear(1, 1))])
def test_an_adapter_is_for_classes(wrong):
    with pytest.raises(TypeError, match=r"expected classes of blocks, as @register_adapter\(MyBlock\)"):
        rl.register_adapter(*wrong)


def test_an_error_in_an_adapter_says_whose():
    class Broken(nn.Module):
        pass

    rl.register_adapter(Broken)(lambda block: rl.Branch(entry="a", exit=block.nothing))
    with pytest.raises(AttributeError) as raised:
        rl.find_branch(Broken())
    assert raised.value.__notes__ == [f"in the adapter of {__name__}.{Broken.__qualname__}"]


def test_timms_adapters_are_found_by_entry_point():
    found = branch.entry_points(group=branch.ENTRY_POINT_GROUP)
    assert "resnet_lesion_timm" in {entry_point.value for entry_point in found}
    assert branch.is_block(resnet.BasicBlock(4, 4))


def test_a_broken_package_of_adapters_is_a_warning(monkeypatch):
    class Broken:
        value = "their_package"

        def load(self):
            raise ImportError("no module named torchvision2")

    monkeypatch.setattr(branch, "entry_points", lambda group: [Broken()])
    with pytest.warns(UserWarning, match="'their_package' could not be loaded: no module named torchvision2"):
        branch.load_adapters.__wrapped__()


def test_suggestions():
    assert checks.did_you_mean("layer1.9", ["layer1.0", "stem"]) == " Did you mean 'layer1.0'?"
    assert checks.did_you_mean("zzz", ["layer1.0"]) == ""


def test_a_branch_cannot_be_changed():
    with pytest.raises(AttributeError):
        rl.wrap(models.build()).branches[0].exit = "conv1"
