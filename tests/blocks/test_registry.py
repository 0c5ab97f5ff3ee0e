import sys
import warnings

import pytest
import timm
import torch
import torchvision
from timm.models import resnet
from torch import nn

import resnet_lesion as rl
from resnet_lesion.blocks import registry


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


def test_an_unknown_class_is_named_and_not_all_that_are_known():
    with pytest.raises(TypeError, match=r"got torch\.nn\.modules\.linear\.Linear\. Register .*see docs\S*\.md\.$"):
        rl.find_branch(nn.Linear(1, 1))


def test_is_block():
    assert registry.is_block(Block())
    assert registry.is_block(Different())
    assert not registry.is_block(nn.Identity())


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
    found = registry.entry_points(group=registry.ENTRY_POINT_GROUP)
    assert "resnet_lesion_timm" in {entry_point.value for entry_point in found}
    assert registry.is_block(resnet.BasicBlock(4, 4))


class Stop(BaseException):
    pass


class Package:
    """An entry point whose package does this when it is imported."""

    def __init__(self, value, run):
        self.value, self.load = value, run


def raises(error):
    def run():
        raise error

    return run


@pytest.mark.parametrize(
    ("run", "said"),
    [
        (raises(ImportError("no module named torchvision2")), "ImportError: no module named torchvision2"),
        (raises(RuntimeError("no such device")), "RuntimeError: no such device"),
        (lambda: sys.exit("this package needs a licence"), "SystemExit: this package needs a licence"),
        (sys.exit, "SystemExit: "),
        (raises(Stop("stopped")), "Stop: stopped"),
    ],
)
@pytest.mark.parametrize("action", ["always", "error"])
def test_a_broken_package_of_adapters_is_a_warning_and_the_others_are_loaded(monkeypatch, run, said, action):
    class Theirs(nn.Module):
        pass

    def register():
        rl.register_adapter(Theirs)(lambda block: rl.Branch(entry="a", exit="theirs"))

    packages = [Package("their_package", run), Package("another_package", register)]
    monkeypatch.setattr(registry, "entry_points", lambda group: packages)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter(action)
        try:
            registry.load_adapters.__wrapped__()
        except UserWarning as error:
            assert action == "error"
            messages = [str(error)]
        else:
            messages = [str(warning.message) for warning in caught]
    assert messages == [f"adapters 'their_package' could not be loaded: {said}"]
    assert rl.find_branch(Theirs()).exit == "theirs"


def test_an_interruption_while_adapters_are_loaded_is_one(monkeypatch):
    monkeypatch.setattr(registry, "entry_points", lambda group: [Package("slow_package", raises(KeyboardInterrupt()))])
    with pytest.raises(KeyboardInterrupt):
        registry.load_adapters.__wrapped__()
    assert not registry._loading.get()


def test_an_adapter_that_returns_something_else_is_refused():
    class Mute(nn.Module):
        pass

    rl.register_adapter(Mute)(lambda block: "conv")
    with pytest.raises(TypeError, match=r"adapter of .*Mute to return a Branch, a Chain or None, got str 'conv'"):
        rl.find_branch(Mute())


def test_links_have_adapters():
    assert rl.find_branch(rl.Residual(nn.Identity())) == rl.Branch("branch", "branch")
    assert rl.find_branch(rl.Residual(nn.Identity(), shortcut=nn.Identity())).shortcut == "shortcut"
    assert not rl.find_branch(rl.Plain(nn.Identity())).skip


def test_a_model_without_blocks_is_described_by_its_most_frequent_classes():
    class Leaf(nn.Module):
        pass

    class Often(nn.Sequential):
        pass

    class Once(nn.Sequential):
        pass

    said = registry.no_blocks(nn.Sequential(Once(nn.Linear(1, 1)), Often(Leaf()), Often(Leaf())))
    often, once = (f"{cls.__qualname__}" for cls in (Often, Once))
    assert said.startswith(
        f"Sequential has no residual block that an adapter knows. Its own classes: {often}, {once}. "
    )
    assert len(said) < 500
    assert "torchvision" not in said
    assert "Its own classes: only torch.nn modules." in registry.no_blocks(
        nn.Sequential(nn.Sequential(nn.Linear(1, 1)))
    )


@pytest.mark.parametrize("name", ["resnet18", "resnext50_32x4d", "wide_resnet50_2"])
def test_the_same_network_of_timms_is_named_for_torchvisions(name):
    with torch.device("meta"):
        model, twin = getattr(torchvision.models, name)(), timm.create_model(name)
    with pytest.raises(TypeError, match=r"timm\.create_model\('resnet50'\)\.load_state_dict\(model\.state_dict\(\)\)"):
        rl.wrap(model)
    shapes, of_twin = ({key: t.shape for key, t in m.state_dict().items()} for m in (model, twin))
    assert shapes == of_twin


def test_torchvisions_weights_give_timms_network_the_same_outputs():
    torch.manual_seed(0)
    model, twin, x = (
        torchvision.models.resnet18().eval(),
        timm.create_model("resnet18").eval(),
        torch.randn(1, 3, 64, 64),
    )
    twin.load_state_dict(model.state_dict())
    with torch.no_grad():
        assert torch.equal(twin(x), model(x))


def test_an_adapter_of_ones_own_stays_when_those_of_packages_are_loaded_later(monkeypatch):
    class Theirs(nn.Module):
        pass

    class Other(nn.Module):
        pass

    def register():
        rl.register_adapter(Theirs, Other)(lambda block: rl.Branch(entry="a", exit="theirs"))

    rl.register_adapter(Theirs)(lambda block: rl.Branch(entry="a", exit="own"))
    assert rl.find_branch(Theirs()).exit == "own"
    monkeypatch.setattr(registry, "entry_points", lambda group: [Package("their_package", register)])
    registry.load_adapters.__wrapped__()
    assert rl.find_branch(Theirs()).exit == "own"
    assert rl.find_branch(Other()).exit == "theirs"
