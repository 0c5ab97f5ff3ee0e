"""Adapters prove themselves on small networks of timm's, with random norms, gains and layer scales.

The sweep does the same for every file of timm and every structure of a ResNet.
"""

import pytest
import timm
import torch

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
