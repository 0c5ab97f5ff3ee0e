import numpy as np
import timm
import torch

import resnet_lesion as rl


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
