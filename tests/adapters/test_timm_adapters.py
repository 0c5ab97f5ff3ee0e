"""Adapters prove themselves on small networks of timm's, with random norms, gains and layer scales.

The sweep does the same for every file of timm and every structure of a ResNet.
"""

import numpy as np
import pytest
import timm
import torch
from torch import nn

import resnet_lesion as rl
from resnet_lesion.testing import check_adapter

# name, pixels, number of blocks, options
NETWORKS = [
    ("resnest14d", 32, 4, {"drop_path_rate": 0.1}),
    ("skresnet18", 32, 8, {"drop_path_rate": 0.1}),
    ("legacy_seresnet18", 32, 8, {}),
    ("nf_resnet26", 32, 8, {"drop_path_rate": 0.1}),
    ("nf_regnet_b0", 32, 16, {}),
    ("gcresnext26ts", 32, 8, {"drop_path_rate": 0.1}),
    ("repvgg_a0", 32, 17, {}),
    ("regnetx_002", 32, 13, {"drop_path_rate": 0.1}),
    ("convnext_atto", 32, 12, {"drop_path_rate": 0.1}),
    ("efficientnet_b0", 32, 9, {"drop_path_rate": 0.1}),
    ("mobilenetv3_small_050", 32, 7, {}),
    ("vit_tiny_patch16_224", 32, 24, {"img_size": 32, "drop_path_rate": 0.1}),
    ("eva02_tiny_patch14_224", 70, 24, {"img_size": 70}),
]


@pytest.mark.parametrize(("name", "pixels", "n_blocks", "options"), NETWORKS, ids=[row[0] for row in NETWORKS])
def test_contract(name, pixels, n_blocks, options):
    model = timm.create_model(name, num_classes=5, **options)
    assert len(rl.wrap(model)) == n_blocks
    assert check_adapter(model, torch.randn(1, 3, pixels, pixels, generator=torch.Generator().manual_seed(0))) < 1e-12


def test_deleting_a_plain_layer_is_a_network_without_it():
    model = timm.create_model("cifar_vgg15").double().eval()
    network = rl.wrap(model)
    inputs = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    with torch.no_grad():
        for layer in network.layers:
            first = int(layer.rpartition(".")[2])
            without = nn.Sequential(*(m for i, m in enumerate(model.features) if i not in (first, first + 1)))
            expected = model.forward_head(without(inputs))
            with network.lesioned(delete=layer):
                assert torch.equal(model(inputs), expected), layer
    with pytest.raises(ValueError, match="has no skip: a plain network has a single path"):
        rl.PathGradient(model).attribute(inputs, target=0)


@pytest.mark.parametrize(("name", "layers"), [("vgg11", (8, 13, 16, 18)), ("vgg11_bn", (11, 18, 22, 25))])
def test_layers_of_vgg(name, layers):
    with torch.device("meta"):
        network = rl.wrap(timm.create_model(name))
    assert network.layers == tuple(f"features.{i}" for i in layers)


def test_branches_of_a_transformer_block_are_deleted_one_by_one():
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=3, num_classes=5).eval()
    network, inputs = rl.wrap(model), torch.randn(2, 3, 32, 32)
    modules = {f"blocks.{i}.{part}": (i, k) for i in range(3) for k, part in ((1, "attn"), (2, "mlp"))}
    assert network.layers == tuple(modules)
    assert network.stage.tolist() == [0] * 6
    with torch.no_grad():
        for layer, (i, k) in modules.items():
            exit_ = getattr(model.blocks[i], f"drop_path{k}")
            handle = exit_.register_forward_hook(lambda _module, _args, output: torch.zeros_like(output))
            expected = model(inputs)
            handle.remove()
            with network.lesioned(delete=layer):
                assert torch.equal(model(inputs), expected), layer
    result = rl.PathGradient(model.double()).analyze((inputs, torch.tensor([0, 1])), show_progress=False)
    assert result.convergence_delta < 1e-12
    assert np.isfinite(result.sum_gradient_norm).all()


def test_paths_around_the_blocks_are_refused_not_lost():
    model = timm.create_model("cspresnet50", num_classes=5)
    data = torch.randn(2, 3, 32, 32), torch.tensor([0, 1])
    with pytest.raises(ValueError, match="expected blocks in a row"):
        rl.PathGradient(model).analyze(data, show_progress=False)
    result = rl.Deletion(model).analyze(data, show_progress=False)
    network = rl.wrap(model.eval())
    for i, layer in enumerate(network.layers):
        with torch.no_grad(), network.lesioned(delete=layer):
            assert result.correct[i] == (model(data[0]).argmax(1) == data[1]).sum(), layer
