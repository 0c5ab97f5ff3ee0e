import numpy as np
from helpers import reference
from hypothesis import given
from hypothesis import strategies as st

from resnet_lesion.engines.plan import Plan


@given(rows=st.integers(1, 5).flatmap(lambda n: st.lists(st.tuples(*[st.integers(-1, 2)] * n), min_size=1)))
def test_plan_counts_distinct_prefixes(rows):
    plan = Plan(np.array(rows))
    assert plan.block_evaluations == reference.block_evaluations(rows)
    prefixes = [{tuple(row[:i]) for row in rows} for i in range(len(rows[0]) + 1)]
    assert plan.n_streams == [len(distinct) for distinct in prefixes]
