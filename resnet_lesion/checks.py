"""Checks of what a caller passes, counts and names: with what was expected, what was got, and the fix."""

from __future__ import annotations

import difflib
import numbers
import operator
from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Suggest the closest known names, for an error message."""
    close = difflib.get_close_matches(name, list(known))
    return f" Did you mean {' or '.join(map(repr, close))}?" if close else ""


def as_counts(name: str, counts: int | Iterable[int], low: int, high: int) -> list[int]:
    """Check a count, or a collection of them, against its bounds.

    Raises:
        TypeError: If they are not integers.
        ValueError: If there is none, one occurs twice, or one is out of bounds.
    """
    try:
        values = [operator.index(c) for c in (counts if isinstance(counts, Iterable) else [counts])]
    except TypeError as error:
        raise TypeError(f"expected {name} to be an integer or several, got {counts!r:.60}.") from error
    outside = [value for value in values if not low <= value <= high]
    if not values or len(set(values)) != len(values) or outside:
        raise ValueError(f"expected {name} to be different counts from {low} to {high}, got {outside or values}.")
    return values


def as_count(name: str, count: int, low: int, high: int) -> int:
    """Check one count against its bounds.

    Raises:
        TypeError: If it is not an integer.
        ValueError: If it is out of bounds.
    """
    if isinstance(count, Iterable):
        raise TypeError(f"expected {name} to be an integer, got {count!r:.60}.")
    return as_counts(name, count, low, high)[0]


def as_positive(name: str, value: int) -> int:
    """Check a number of repetitions.

    Raises:
        TypeError: If it is not an integer.
        ValueError: If it is below 1.
    """
    if not isinstance(value, numbers.Integral):
        raise TypeError(f"expected {name} to be an integer, got {value!r:.60}.")
    if value < 1:
        raise ValueError(f"expected {name} >= 1, got {value}.")
    return int(value)
