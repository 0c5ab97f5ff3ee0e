from itertools import permutations

import pytest

from resnet_lesion.network.kept import Kept


@pytest.mark.parametrize("order", [*permutations(range(4))])
def test_the_last_to_end_puts_back_what_the_first_found(order):
    """Each context finds what the one before it has set: its number."""
    stack, current, kept = [], "before", {}
    for i in range(4):
        kept[i] = Kept(current)
        stack.append(kept[i])
        current = i
    for i in order:
        ended = kept.pop(i)
        if ended.released(stack):
            current = ended.value
        assert current == max(kept, default="before")
    assert stack == []
