"""An alternative that finds something else is found out."""

import pytest
import torch

from benchmarks import alternatives, lesions, networks


@pytest.mark.parametrize("change", [lambda lead, loss: (-lead, loss), lambda lead, loss: (lead, loss + 0.1)])
def test_wrong_counts_and_wrong_losses_are_told_apart(tiny, change):
    workload = networks.Workload(tiny, "cpu")
    result = lesions.analysis(workload, "single")(workload.network)
    found = alternatives.hook_loop(workload.network, lesions.rows_of(result), *workload.data)
    chosen = range(12)
    lesions.check("loop", result, chosen, found)
    with pytest.raises(lesions.WrongResultError, match="differ in 12 of 12 lesions"):
        lesions.check("loop", result, chosen, torch.stack(change(*found.unbind(2)), 2))


def test_lesions_to_time_are_spread_evenly():
    assert lesions.spread(10, 4).tolist() == [0, 3, 6, 9]
    assert lesions.spread(3, 4).tolist() == lesions.spread(3, None).tolist() == [0, 1, 2]
