import pytest
import torch
from helpers import models
from helpers.analyses import QUIET

import resnet_lesion as rl


@pytest.mark.parametrize(
    "analyse",
    [
        lambda model, data: rl.Deletion(model).analyze(data, **QUIET),
        lambda model, data: rl.Deletion(model).attribute(*data),
        lambda model, data: rl.evaluate(model, data, [[0, 1, 2, 3, 4, -1]], **QUIET),
        lambda model, data: rl.study(model, data, n_deleted=[1], n_swaps=[1], n_draws=1, n_paths=1, **QUIET),
    ],
)
def test_a_warning_points_at_the_line_of_the_call(analyse):
    model = models.build("functional")
    torch.nn.init.zeros_(model.stage1[0].conv2.weight)
    torch.nn.init.zeros_(model.stage1[0].conv2.bias)
    with pytest.warns(UserWarning, match="return zero") as caught:
        analyse(model, models.data(4))
    assert {warning.filename for warning in caught} == {__file__}
