import copy
import datetime
import hashlib
import json
import math

import numpy as np
import pytest
import timm
import torch
import xarray as xr
from helpers import models, quantised
from torch import nn
from torch.distributed import device_mesh, tensor
from torch.utils.data import DataLoader, TensorDataset

import resnet_lesion as rl
from resnet_lesion.results.provenance import array_hash, layer_coords, model_name, now, origin, weights_hash

SCALARS = {"total": (), "skipped": (), "baseline_correct": (), "baseline_error": (), "baseline_loss": ()}
MEASURES = ("correct", "loss", "agreeing", "agreement", "error", "error_low", "error_high")
INTEGERS = {
    "correct",
    "agreeing",
    "total",
    "skipped",
    "baseline_correct",
    "correct_by_class",
    "total_by_class",
    "order",
}
AT_LAYER = {"layer": ("layer",), "stage": ("layer",), "is_downsampling": ("layer",)}
AT_POSITION = dict.fromkeys(AT_LAYER, ("position",))
DELETIONS, SWAPS = ("n_deleted", "draw"), ("n_swaps", "draw")


def each(dims):
    return {name: (dim,) for dim in dims for name in [dim]}


# what is run, and which variables and coordinates its result has over which dimensions
RESULTS = {
    "evaluate": (
        lambda model, data, **options: rl.evaluate(model, data, [[0, 1, 2, 3, 5, 4], [-1] * 6], **options),
        dict.fromkeys(MEASURES, ("lesion",)) | {"order": ("lesion", "position")},
        each(["lesion"]) | AT_POSITION,
    ),
    "Deletion, each": (
        lambda model, data, **options: rl.Deletion(model).analyze(data, **options),
        dict.fromkeys(MEASURES, ("layer",)),
        AT_LAYER,
    ),
    "Deletion, many": (
        lambda model, data, **options: rl.Deletion(model).analyze(data, n_deleted=[1, 3], n_draws=2, **options),
        dict.fromkeys(MEASURES, DELETIONS)
        | {"deleted": (*DELETIONS, "layer"), "remaining_fraction": ("n_deleted", "path_length")},
        each([*DELETIONS, "path_length"]) | AT_LAYER,
    ),
    "Reorder": (
        lambda model, data, **options: rl.Reorder(model).analyze(data, n_swaps=range(3), n_draws=2, **options),
        dict.fromkeys(MEASURES, SWAPS) | {"order": (*SWAPS, "position"), "kendall_tau": SWAPS},
        each(SWAPS) | AT_POSITION,
    ),
}


@pytest.mark.parametrize("by_class", [False, True])
@pytest.mark.parametrize("name", RESULTS)
def test_variables_and_coordinates(name, by_class):
    analyze, variables, coordinates = RESULTS[name]
    found = analyze(models.build(), models.data(5), by_class=by_class, show_progress=False)
    variables, coordinates = variables | SCALARS, dict(coordinates)
    if by_class:
        variables |= {"correct_by_class": (*variables["correct"], "class"), "total_by_class": ("class",)}
        coordinates["class"] = ("class",)
    assert {str(key): array.dims for key, array in found.data_vars.items()} == variables
    assert {str(key): array.dims for key, array in found.coords.items()} == coordinates
    for key, array in found.variables.items():
        assert array.attrs["long_name"], key
        assert array.attrs["units"], key
    for key in found.data_vars:
        expected = "i" if key in INTEGERS else "b" if key == "deleted" else "f"
        assert found[key].dtype.kind == expected, key
    assert {array.attrs["units"] for key, array in found.data_vars.items() if "loss" in str(key)} == {"nat"}


@pytest.mark.parametrize("name", RESULTS)
def test_provenance(name):
    model = models.build()
    found = RESULTS[name][0](model, models.data(5), show_progress=False)
    attrs = found.attrs
    assert all(type(value) in (str, int, float) for value in attrs.values()), attrs
    assert attrs["Conventions"].startswith("CF-")
    assert attrs["title"]
    assert "arXiv:1605.06431" in attrs["references"]
    assert attrs["created"].startswith("20")
    assert attrs["created"].endswith("+00:00")
    assert {"resnet-lesion", "torch", "timm", "captum", "xarray", "numpy"} <= json.loads(attrs["versions"]).keys()
    assert attrs["model"] == "Net"
    assert attrs["weights_sha256"] == weights_hash(model)
    assert attrs["data"] == "5 images of shape 3x6x6 from tuple"
    assert (attrs["n_blocks"], attrs["n_classes"]) == (6, 5)
    assert (attrs["device"], attrs["dtype"], attrs["autocast"]) == ("cpu", "float64", "None")
    assert attrs["block_evaluations"] <= attrs["naive_block_evaluations"]
    assert isinstance(json.loads(attrs["options"]), dict)


def test_options_are_those_of_the_call():
    found = rl.Deletion(models.build()).analyze(
        models.data(3), n_deleted=range(1, 3), n_draws=np.int64(2), seed=4, by_class=True, show_progress=False
    )
    options = json.loads(found.attrs["options"])
    assert options == {"n_deleted": [1, 2], "n_draws": 2, "seed": 4, "by_class": True, "perturbations_per_eval": None}
    found = rl.Reorder(models.build()).analyze(models.data(3), n_swaps=2, perturbations_per_eval=3, show_progress=False)
    options = json.loads(found.attrs["options"])
    assert options == {"n_swaps": [2], "n_draws": 10, "seed": 0, "by_class": False, "perturbations_per_eval": 3}


def as_forms(data, size):
    batches = [*zip(data[0].split(size), data[1].split(size), strict=True)]
    return batches, (batch for batch in batches), DataLoader(TensorDataset(*data), batch_size=size)


@pytest.mark.parametrize("name", RESULTS)
def test_data_of_any_form_gives_identical_results(name):
    analyze, model, data = RESULTS[name][0], models.build(), models.data(7)
    results = [analyze(model, form, by_class=True, show_progress=False) for form in as_forms(data, 3)]
    for result in results:
        for attr in ("created", "data"):
            del result.attrs[attr]
        xr.testing.assert_identical(result, results[0])
    together = analyze(model, data, by_class=True, show_progress=False)
    for key, array in together.data_vars.items():
        if "loss" in str(key):
            xr.testing.assert_allclose(array, results[0][key], rtol=1e-12)
        else:
            xr.testing.assert_identical(array, results[0][key])


def test_the_hash_sees_every_tensor():
    class Odd(nn.Module):
        """Has tensors of every kind that a model may have."""

        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(2, 2, dtype=torch.bfloat16))
            self.register_buffer("count", torch.tensor(3))
            self.register_buffer("flags", torch.tensor([True, False]))
            self.register_buffer("nothing", torch.empty(0, 2))

        def get_extra_state(self):
            return {"not": "a tensor"}

        def set_extra_state(self, state):
            pass

    hashes = {weights_hash(Odd())}
    assert len(hashes.copy() | {weights_hash(Odd())}) == 1
    for change in (
        lambda model: model.weight.data.view(-1)[3:].zero_(),
        lambda model: model.count.add_(1),
        lambda model: model.flags.logical_not_(),
        lambda model: setattr(model, "nothing", torch.empty(0, 3)),
        lambda model: model.half(),
        lambda model: setattr(model, "weight", nn.Parameter(torch.ones(4, dtype=torch.bfloat16))),
        lambda model: model.register_buffer("more", torch.zeros(1)),
    ):
        model = Odd()
        change(model)
        hashes.add(weights_hash(model))
    assert len(hashes) == 8


def test_the_hash_of_plain_weights_is_that_of_their_bytes():
    """Checkpoints and results of earlier versions hold it."""
    model = nn.Linear(2, 1, dtype=torch.float64)
    digest = hashlib.sha256()
    for name, values in (("bias", model.bias), ("weight", model.weight)):
        digest.update(f"{name} torch.float64 {tuple(values.shape)}".encode() + values.detach().numpy().tobytes())
    assert weights_hash(model) == digest.hexdigest()


class Drawn(torch.Tensor):
    """A subclass that only has another name."""


class Packed(nn.Module):
    """Keeps its weights as a quantised module does: in one entry of the state dict."""

    def __init__(self, weight):
        super().__init__()
        self.weight = weight

    def _save_to_state_dict(self, destination, prefix, keep_vars):
        destination[f"{prefix}packed"] = (self.weight, None, torch.float32)


def of_quantised(values, scale):
    return quantised.Quantised(values.to(torch.int8), torch.tensor(scale))


OTHER_TENSORS = {  # how to make one out of values and a factor
    "traceable subclass": of_quantised,
    "traceable within traceable": lambda values, scale: quantised.Quantised(
        of_quantised(values, 1.0), scale * torch.ones(())
    ),
    "plain subclass": lambda values, scale: (scale * values).as_subclass(Drawn),
    "quantised by torch": lambda values, scale: torch._make_per_tensor_quantized_tensor(
        values.to(torch.int8), scale, 0
    ),
    "sparse": lambda values, scale: (scale * values).to_sparse(),
    "complex": lambda values, scale: torch.complex(values, scale * torch.ones(values.shape)),
}


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
@pytest.mark.parametrize("kind", OTHER_TENSORS)
@pytest.mark.parametrize("packed", [False, True])
def test_the_hash_sees_the_values_of_other_kinds_of_tensors(kind, packed):
    def hashed(values, scale):
        tensor = OTHER_TENSORS[kind](torch.tensor(values), scale)
        model = Packed(tensor) if packed else nn.Module()
        if not packed:
            model.register_buffer("weight", tensor)
        return weights_hash(model)

    before = hashed([1.0, 0.0, 2.0], 0.5)
    assert hashed([1.0, 0.0, 2.0], 0.5) == before
    assert len({before, hashed([1.0, 0.0, 3.0], 0.5), hashed([1.0, 0.0, 2.0], 0.25), hashed([1.0, 0.0], 0.5)}) == 4


def test_weights_that_do_not_show_their_values_are_refused():
    model = quantised.quantise(models.build(), quantised.Opaque)
    for use in (weights_hash, lambda model: rl.Deletion(model).analyze(models.data(3), show_progress=False)):
        with pytest.raises(TypeError, match=r"values can be read, got Opaque \('head.weight'\).* __tensor_flatten__"):
            use(model)


def test_quantised_weights_give_the_numbers_of_what_they_stand_for():
    model, data = quantised.quantise(models.build()), models.data(5)
    plain = copy.deepcopy(model)
    with torch.no_grad():
        plain.head.weight = nn.Parameter(plain.head.weight.values * plain.head.weight.scale)
    assert weights_hash(model) != weights_hash(plain)
    for analyze in (rl.Deletion, rl.PathGradient):
        expected, found = (analyze(which).analyze(data, show_progress=False) for which in (plain, model))
        for key in expected.data_vars:
            np.testing.assert_allclose(found[key], expected[key], rtol=1e-12, err_msg=str(key))


def test_models_quantised_by_torchao():
    quantization = pytest.importorskip("torchao.quantization")

    def build(seed=0):
        torch.manual_seed(seed)
        model = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=2, num_classes=5).eval()
        quantization.quantize_(model, quantization.Int8WeightOnlyConfig())
        return model

    model, data = build(), (models.images(4, (3, 32, 32), dtype=torch.float32), models.labels(4))
    assert weights_hash(model) == weights_hash(build()) != weights_hash(build(1))
    network, found = rl.wrap(model), rl.Deletion(model).analyze(data, show_progress=False)
    for layer in network.layers:
        with network.lesioned(delete=layer), torch.no_grad():
            expected = nn.functional.cross_entropy(model(data[0]), data[1])
        assert float(found.loss.sel(layer=layer)) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.filterwarnings("ignore:DTensor random operators:UserWarning")
@pytest.mark.usefixtures("process_group")
def test_the_hash_of_weights_in_parts_is_that_of_the_whole():
    model, mesh = models.build(), device_mesh.init_device_mesh("cpu", (1,))
    before = weights_hash(model)
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            setattr(module, name, nn.Parameter(tensor.distribute_tensor(parameter, mesh, [tensor.Shard(0)])))
    assert type(model.head.weight.data) is tensor.DTensor
    assert weights_hash(model) == before


def test_the_hash_does_not_depend_on_memory_layout():
    model = models.build()
    before = weights_hash(model)
    assert weights_hash(model.to(memory_format=torch.channels_last)) == before


def test_model_names():
    assert model_name(timm.create_model("cifar_preactresnet110", pretrained=True)) == "cifar_preactresnet110.digits"
    # batch norms that have seen no image are not those of trained weights
    fresh = timm.create_model("resnet10t")
    assert model_name(fresh) == "resnet10t"
    fresh.train()(torch.ones(2, 3, 32, 32))
    assert model_name(fresh) == "resnet10t.c3_in1k"
    # nothing else tells
    assert model_name(timm.create_model("convnext_atto")) == "convnext_atto.d2_in1k"
    assert model_name(models.build()) == "Net"


def test_no_image_is_lost_in_the_last_batch():
    model, data = models.build(), models.data(10)
    for size in (1, 3, 4, 10, 11):
        found = rl.Deletion(model).analyze(as_forms(data, size)[0], by_class=True, show_progress=False)
        assert int(found.total) == 10
        assert found.total_by_class.values.sum() == 10
        assert math.isclose(found.baseline_error, 1 - found.baseline_correct / 10)


def test_blocks_have_names_stages_and_shortcuts():
    network = rl.wrap(models.build())
    for dim in ("layer", "position"):
        coords = layer_coords(network, dim)
        assert list(coords) == ["layer", "stage", "is_downsampling"]
        assert {array.dims for array in coords.values()} == {(dim,)}
        assert coords["layer"].values.tolist() == list(network.layers)
        has_module = [branch.shortcut is not None for branch in network.branches]
        assert coords["is_downsampling"].values.tolist() == has_module


def test_options_of_every_type_are_written_as_json():
    options = {"range": range(2), "array": np.arange(2), "number": np.float64(0.5), "set": {3}, "none": None, "x": str}
    written = json.loads(origin(rl.wrap(models.build()), "A title", options)["options"])
    assert written == {
        "range": [0, 1], "array": [0, 1], "number": 0.5, "set": [3], "none": None, "x": "<class 'str'>"
    }  # fmt: skip


def test_the_time_is_utc_to_the_second():
    before = datetime.datetime.now(datetime.UTC)
    written = datetime.datetime.fromisoformat(now())
    assert written.utcoffset() == datetime.timedelta(0)
    assert written.microsecond == 0
    assert before.replace(microsecond=0) <= written <= datetime.datetime.now(datetime.UTC)


def test_the_hash_of_an_array_is_of_its_values_in_order():
    table = np.arange(6).reshape(2, 3)
    assert array_hash(table) == hashlib.sha256(b"".join(int(i).to_bytes(8, "little") for i in range(6))).hexdigest()
    assert array_hash(np.asfortranarray(table)) == array_hash(table)
    assert array_hash(table.T) != array_hash(table)
