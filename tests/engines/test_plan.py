import numpy as np
import torch
from helpers import reference
from hypothesis import given
from hypothesis import strategies as st

from resnet_lesion.engines.plan import Fork, Plan
from resnet_lesion.network.orders import DELETED

ROWS = st.integers(1, 5).flatmap(lambda n: st.lists(st.tuples(*[st.integers(-1, 2)] * n), min_size=1))


@given(rows=ROWS)
def test_plan_counts_distinct_prefixes(rows):
    plan = Plan(np.array(rows))
    assert plan.block_evaluations == reference.block_evaluations(rows)
    prefixes = [{tuple(row[:i]) for row in rows} for i in range(len(rows[0]) + 1)]
    assert plan.n_streams == [len(distinct) for distinct in prefixes]


@given(rows=ROWS)
def test_following_the_forks_gives_every_row(rows):
    plan = Plan(np.array(rows))
    streams = [()]
    for forks in plan.forks:
        streams = [
            (*parent, fork.block)
            for fork in forks
            for start, stop in fork.runs
            for parent in streams[start:stop]
        ]  # fmt: skip
    assert len(set(streams)) == len(streams)
    assert [streams[i] for i in plan.stream] == [tuple(row) for row in rows]


@given(rows=ROWS)
def test_neighbouring_parents_are_one_run(rows):
    for forks in Plan(np.array(rows)).forks:
        assert [fork.block for fork in forks] == sorted({fork.block for fork in forks})
        for fork in forks:
            assert all(start < stop for start, stop in fork.runs)
            assert all(before[1] < after[0] for before, after in zip(fork.runs, fork.runs[1:], strict=False))


def test_a_plan_written_out():
    plan = Plan(np.array([[0, 1, 2], [0, DELETED, 2], [DELETED, 1, 2], [0, 1, 2]]))
    assert plan.n_streams == [1, 2, 3, 3]
    assert plan.forks[0] == (Fork(DELETED, ((0, 1),)), Fork(0, ((0, 1),)))
    assert plan.forks[1] == (Fork(DELETED, ((1, 2),)), Fork(1, ((0, 2),)))
    assert plan.forks[2] == (Fork(2, ((0, 3),)),)
    assert plan.stream.tolist() == [2, 0, 1, 2]
    assert plan.block_evaluations == 1 + 2 + 3


def test_the_streams_are_copied_to_a_device_once():
    plan, cpu = Plan(np.array([[0, 1], [1, 0]])), torch.device("cpu")
    found = plan.stream_on(cpu)
    assert found.tolist() == plan.stream.tolist()
    assert plan.stream_on(cpu) is found
    assert plan.stream_on(torch.device("meta")).device.type == "meta"
