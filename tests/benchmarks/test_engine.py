"""The bare computations are those of the engine, and the lower bound is the reference's."""

import numpy as np
import torch
from helpers import reference

from benchmarks import engine, lesions, networks


def test_streams_are_counted_as_the_reference_counts_them():
    rows = np.array([[0, 1, 2], [-1, 1, 2], [0, -1, 2], [0, 2, 1]])
    levels = engine.levels(rows)
    assert levels == [{0: 1, -1: 1}, {1: 2, -1: 1, 2: 1}, {2: 3, 1: 1}]
    assert engine.evaluations(levels) == reference.block_evaluations(rows.tolist())


def test_bare_computations_are_those_of_the_engine(tiny):
    workload = networks.Workload(tiny, "cpu")
    analyze = lesions.analysis(workload, "deletions")
    rows = np.vstack([np.arange(12), lesions.rows_of(analyze(workload.network))])
    bare = engine.bare_computations(
        workload.network, workload.inputs, engine.levels(rows), engine.batch_sizes(workload, analyze)
    )
    # in its first three passes the network is proved
    assert calls_of_blocks(workload, bare) == calls_of_blocks(workload, lambda: analyze(workload.network), 3)


def calls_of_blocks(workload, compute, n_left_out=0):
    """Note which convolutions run on how many images, but for some passes."""
    calls = []
    passes = [workload.network.model.register_forward_pre_hook(lambda *_: calls.append(None))]
    modules = {module: name for name, module in workload.network.model.named_modules() if "conv" in name}
    handles = [m.register_forward_hook(lambda m, args, _: calls.append((modules[m], len(args[0])))) for m in modules]
    with torch.no_grad():
        compute()
    for handle in handles + passes:
        handle.remove()
    begins = [i for i, call in enumerate(calls) if call is None]
    counted = calls[begins[n_left_out] if n_left_out else 0 :]
    return sorted(call for call in counted if call is not None)
