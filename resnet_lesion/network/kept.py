"""What a context found and puts back, in whichever order such contexts end."""

from __future__ import annotations

from typing import Generic, TypeVar

_T = TypeVar("_T")


class Kept(Generic[_T]):
    """A value as it was when a context began; those whose contexts are open lie on a stack, the last one on top."""

    def __init__(self, value: _T) -> None:
        self.value = value

    def released(self, stack: list[Kept[_T]]) -> bool:
        """Leave the stack, and tell whether the value is to be put back now.

        Where a context that began later is still open, that one will put it back, and what it has set stays till then.
        """
        i = stack.index(self)
        del stack[i]
        if i == len(stack):
            return True
        stack[i].value = self.value
        return False
