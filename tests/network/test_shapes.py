"""Which blocks can stand in which places."""

import numpy as np
import pytest
import torch
from helpers import models, reference

import resnet_lesion as rl
from resnet_lesion.network.shapes import check_fit, swappable_pairs


@pytest.mark.parametrize("name", ["post-activation", "pre-activation", "resnet basic", "resnetv2 basic"])
def test_pairs_that_can_be_swapped_are_those_that_the_model_runs_in_each_others_place(name):
    network, inputs = rl.wrap(models.build(name)), models.images(1, models.CASES[name].shape)
    trace, n = network.trace(inputs), len(network)
    kinds = reference.kinds(network.model, inputs)
    pairs = {tuple(pair) for pair in swappable_pairs(network, trace).tolist()}
    projections = np.flatnonzero(network.is_downsampling)
    for a, b in np.argwhere(np.triu(np.ones((n, n), dtype=bool), 1)).tolist():
        row = np.arange(n)
        row[[a, b]] = row[[b, a]]
        alike = kinds[a] == kinds[b]
        assert ((a, b) in pairs) == (alike and not {a, b} & {*projections.tolist()})
        if alike:
            check_fit(network, row[None], trace)
            with torch.no_grad(), network.lesioned(order=row) as model:
                model.eval()(inputs)
        else:
            with pytest.raises(ValueError, match=r"cannot run in the place of .*: reorder blocks of the same shapes"):
                check_fit(network, row[None], trace)
