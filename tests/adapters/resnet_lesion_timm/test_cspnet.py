import pytest
import timm
import torch
from helpers import models

import resnet_lesion as rl


def test_paths_around_the_blocks_are_refused_not_lost():
    model = models.randomised(timm.create_model("cspresnet50", num_classes=5))
    data = torch.randn(2, 3, 32, 32), torch.tensor([0, 1])
    with pytest.warns(UserWarning, match="one by one"), pytest.raises(ValueError, match="expected blocks in a row"):
        rl.PathGradient(model).analyze(data, show_progress=False)
    with pytest.warns(UserWarning, match="one by one"):
        result = rl.Deletion(model).analyze(data, show_progress=False)
    network = rl.wrap(model.eval())
    for i, layer in enumerate(network.layers):
        with torch.no_grad(), network.lesioned(delete=layer):
            assert result.correct[i] == (model(data[0]).argmax(1) == data[1]).sum(), layer
