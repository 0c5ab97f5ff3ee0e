"""What hypothesis draws."""

from hypothesis import strategies as st


def order_rows(kinds, max_rows=5):
    """Rows that delete, move and repeat blocks, each only where one of its shapes may stand."""
    places = [[-1, *(j for j, other in enumerate(kinds) if other == kind)] for kind in kinds]
    return st.lists(st.tuples(*map(st.sampled_from, places)).map(list), min_size=1, max_size=max_rows)
