"""One sweep, laid out over whatever an analyzer names."""

import numpy as np
import pytest
from helpers import models

import resnet_lesion as rl
from resnet_lesion.analyzers.sweep import sweep
from resnet_lesion.runs.run import Run

ROWS = np.array([[-1, 1, 2, 3, 4, 5], [0, -1, 2, 3, 4, 5], [2, 1, 0, 3, 5, 4], [1, 1, -1, -1, 4, 5]])


@pytest.mark.parametrize("layers_along", ["layer", "position"])
@pytest.mark.parametrize("as_function", [False, True])
def test_lesions_are_laid_out_over_the_coordinates(layers_along, as_function):
    network, data = rl.wrap(models.build()), models.data(6)
    run = Run(network, "anything", "What is tested", {}, show_progress=False)
    traces = []
    lesions = (lambda trace: traces.append(trace) or ROWS) if as_function else ROWS
    coords = {"kind": ["deleted", "moved"], "draw": range(2)}
    found, seen = sweep(
        run, data, lesions, coords, layers_along=layers_along, by_class=True, perturbations_per_eval=None
    )
    expected = rl.evaluate(network, data, ROWS, by_class=True, show_progress=False)
    for name in ("correct", "loss", "agreement", "correct_by_class", "error_low"):
        assert found[name].dims[:2] == ("kind", "draw")
        np.testing.assert_array_equal(found[name].values.reshape(expected[name].shape), expected[name], err_msg=name)
    assert found.kind.values.tolist() == ["deleted", "moved"]
    assert found.layer.dims == (layers_along,)
    assert ("order" in found) == (layers_along == "position")
    if layers_along == "position":
        assert found.order.values.tolist() == ROWS.reshape(2, 2, 6).tolist()
    assert seen.total == int(found.total) == 6
    assert len(traces) == as_function
