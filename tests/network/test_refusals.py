import pytest
import timm
import torch
from helpers import models
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torchvision.models.feature_extraction import create_feature_extractor

import resnet_lesion as rl
from resnet_lesion.network.refusals import analysable, refuse_non_finite
from resnet_lesion.results.provenance import weights_hash


def compiled_in_place():
    model = models.build()
    model.compile()
    return model


def with_a_compiled_stage():
    model = models.build()
    model.stage1 = torch.compile(model.stage1)
    return model


def traced():
    return torch.jit.trace(models.build(), models.images(1))


def fx_extractor():
    return create_feature_extractor(models.build("resnet basic"), return_nodes=["layer3", "fc"])


def fx_features():
    return timm.create_model("resnet18", features_only=True, feature_cls="fx")


def without_statistics():
    model = models.build()
    model.stage1[0].bn1 = nn.BatchNorm2d(4, track_running_stats=False)
    return model


class Overrides(models.PostActivation):
    def forward(self, x):
        return 2 * super().forward(x)


def with_a_subclass():
    return models.Net(Overrides)


def without_known_blocks():
    class Unknown(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Linear(2, 2))

        def forward(self, x):
            return x + self.body(x)

    return nn.Sequential(Unknown(), Unknown())


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: "resnet50", r"expected a torch.nn.Module .*got str 'resnet50'.*timm.create_model\('resnet50'\)"),
        (lambda: None, "expected a torch.nn.Module or a ResidualNetwork, got NoneType"),
        (lambda: models.Net, r"expected a torch.nn.Module or a ResidualNetwork, got type Net\. Call it first"),
        (lambda: models.build().state_dict(), r"got OrderedDict\. Load weights into their model first"),
        (lambda: models.data(2), r"got tuple\.$"),
        (lambda: nn.DataParallel(models.build()), r"the model is DataParallel, whose replicas .* Pass its \.module"),
        (lambda: nn.Sequential(nn.DataParallel(models.build())), "submodule '0' is DataParallel"),
        (fx_extractor, "the model is an FX graph .*Pass the model that it was made from"),
        (fx_features, "is an FX graph .*Pass the model that it was made from"),
        (traced, "the model is TorchScript.*Pass the model that it was made from"),
        (compiled_in_place, "the model is compiled and would ignore lesions. Pass the model before it is compiled"),
        (with_a_compiled_stage, "submodule 'stage1' is compiled"),
        (without_statistics, r"'stage1.0.bn1' \(BatchNorm2d\) normalises with the statistics of its batch"),
        (with_a_subclass, r"Overrides overrides the forward of helpers\.models\.PostActivation.*Register an adapter"),
        (
            without_known_blocks,
            r"no residual block .*Its own .*Unknown.*Register an adapter.*supported_models tells which",
        ),
        (lambda: nn.Sequential(nn.Linear(2, 2)), "no residual block .*only torch.nn modules"),
    ],
)
def test_models_that_cannot_be_lesioned_are_refused(make, message):
    model = make()
    for use in (rl.wrap, rl.Deletion, rl.Reorder, lambda m: rl.evaluate(m, models.data(2), [[0]])):
        with pytest.raises(TypeError, match=message):
            use(model)


def test_a_model_from_torch_compile_is_unwrapped():
    model = models.build()
    compiled = torch.compile(model)
    network = rl.wrap(compiled)
    assert network.model is model
    data = models.data(3)
    found = rl.Deletion(compiled).analyze(data, show_progress=False)
    assert found.loss.equals(rl.Deletion(model).analyze(data, show_progress=False).loss)


def test_what_can_be_analysed_is_handed_back():
    model = models.build()
    assert analysable(model) is model
    assert analysable(torch.compile(model)) is model


def test_the_batch_norm_that_is_named_is_the_one_without_statistics():
    model = models.build()
    model.stage2[1].bn2 = nn.BatchNorm2d(6, track_running_stats=False)
    with pytest.raises(TypeError, match=r"submodule 'stage2\.1\.bn2' \(BatchNorm2d\) .* Use track_running_stats=True"):
        analysable(model)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("stem.weight", torch.nan),
        ("stem.weight", torch.inf),
        ("stage1.1.bn2.running_mean", torch.inf),
        ("stage1.1.bn2.running_mean", -torch.inf),
        ("stage2.0.bn1.running_var", torch.inf),
        ("head.bias", torch.inf),
    ],
)
def test_weights_that_are_no_numbers_are_named(name, value):
    model, x = models.build(), models.images(3)
    with torch.no_grad():
        refuse_non_finite(model, model(x))
        dict([*model.named_parameters(), *model.named_buffers()])[name][1] = value
        with pytest.raises(ValueError, match=rf"expected weights that are numbers, got .* in '{name}'\. Had"):
            refuse_non_finite(model, model(x))
        model.stem.bias[0] = torch.nan
        with pytest.raises(ValueError, match=r"in 'stem\.(weight|bias)' and 1 more\."):
            refuse_non_finite(model, model(x))


def test_a_buffer_is_named_if_it_shows():
    model, x = models.build(), models.images(3)
    model.register_buffer("unused", torch.tensor([torch.nan]))
    model.register_buffer("mask", torch.tensor([0, -torch.inf, 0, 0, -torch.inf]))
    model.register_buffer("count", torch.tensor(3))
    model.register_buffer("elsewhere", torch.zeros(2, device="meta"))
    refuse_non_finite(model, model(x) + model.mask)
    with pytest.raises(ValueError, match="in 'unused'"):
        refuse_non_finite(model, model(x) * model.unused)


def test_numbers_that_leave_the_range_are_told_from_broken_weights():
    model, x = models.build(dtype=torch.float16), models.images(3, dtype=torch.float16)
    with torch.no_grad():
        model.stem.weight.mul_(60000)
        with pytest.raises(ValueError, match=r"for finite images: they leave the range of torch\.float16"):
            refuse_non_finite(model, model(x))


def test_classes_may_be_ruled_out():
    model, x = models.build(), models.images(2)
    with torch.no_grad():
        model.head.bias[:4] = -torch.inf
        refuse_non_finite(model, model(x))
        model.head.bias[4] = -torch.inf
        with pytest.raises(ValueError, match="expected a model that gives numbers"):
            refuse_non_finite(model, model(x))


@pytest.mark.usefixtures("process_group")
@pytest.mark.parametrize("sharded", ["", "stage1.1"])
def test_a_sharded_model_can_be_lesioned_but_not_analysed(sharded):
    plain, model, mesh, inputs = models.build(), models.build(), init_device_mesh("cpu", (1,)), models.images(2)
    if sharded:
        fully_shard(model.get_submodule(sharded), mesh=mesh)
    fully_shard(model, mesh=mesh)
    network = rl.wrap(model)
    with rl.wrap(plain).lesioned(delete="stage1.0"), network.lesioned(delete="stage1.0"), torch.no_grad():
        assert torch.equal(model(inputs), plain(inputs))
    for use in (
        lambda: rl.Deletion(model).analyze(models.data(2), show_progress=False),
        lambda: rl.PathGradient(model).attribute(inputs, target=0),
        lambda: rl.accelerate(model, inputs),
        lambda: network.verify(inputs),
    ):
        with pytest.raises(TypeError, match=r"the model \(FSDPNet\) is sharded by FSDP. Load the whole state dict"):
            use()
    whole = models.build()
    nn.init.zeros_(whole.head.weight)
    whole.load_state_dict(get_model_state_dict(model, options=StateDictOptions(full_state_dict=True)))
    assert weights_hash(whole) == weights_hash(plain)
