import pytest
import timm
import torch
from torch import nn

import resnet_lesion as rl


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
