"""What several adapters ask of a block: timm replaces what is not wanted by None or an Identity."""

from __future__ import annotations

from torch import nn


def last(block: nn.Module, *names: str) -> str:
    """Return the first of these submodules' names that the block has."""
    return next(name for name in names if getattr(block, name) is not None)


def projection(block: nn.Module, name: str) -> str | None:
    """Return the name of the block's projection, or None if its shortcut is the identity."""
    module = getattr(block, name)
    return None if module is None or isinstance(module, nn.Identity) else name
