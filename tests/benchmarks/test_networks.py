"""The networks that are timed can lose something by every lesion."""

from dataclasses import replace

import numpy as np
import pytest

import resnet_lesion as rl
from benchmarks import lesions, networks


@pytest.mark.parametrize("changes", [{}, {"model": "resnet50", "pixels": 32, "stage_blocks": None}])
def test_every_branch_is_alive(tiny, changes):
    workload = networks.Workload(replace(tiny, images=6, **changes), "cpu")
    result = rl.Deletion(workload.network).analyze(workload.data, show_progress=False)
    assert float(result.baseline_error) == 0
    assert len(workload.targets.unique()) > 1
    # every lesion costs more than the check would overlook
    assert float(abs(result.loss - result.baseline_loss).min()) > 10 * lesions.LOSS_TOLERANCE
    assert len(np.unique(result.loss)) == len(workload.network)
