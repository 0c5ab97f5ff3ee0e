"""The contract between a residual network and its adapters: what a block's residual branch is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor

Transform: TypeAlias = str | Callable[[Tensor], Tensor] | None
"""A submodule's name relative to the block, a function of one tensor, or None for the identity."""


@dataclass(frozen=True)
class Branch:
    """The parts of one residual block ``y = post(shortcut(preact(x)) + scale(branch(x)))``.

    Attributes:
        entry: The submodule where the branch begins, or all of them where it begins in parallel. It reads the
            block's input, or what ``preact`` made of it.
        exit: The submodule whose output is the last thing computed in the branch before ``scale`` and the addition.
        shortcut: The projection on the skip, or None for an identity shortcut.
        preact: What a projection is fed: None for the block's input, else the pre-activation that makes it.
        scale: A fixed factor that follows ``exit``: a number or a :data:`Transform`; None if there is none.
        post: What follows the addition, or None.
        skip: False for a layer of a plain network, ``y = branch(x)``: deleting it passes its input on.

    Shortcut, preact, scale and post are each a :data:`Transform`, so that a functional ReLU or a shortcut without a
    module of its own can be described: ``post=torch.relu``.

    Raises:
        TypeError: If a part is something else.

    References:
        Veit, Wilber & Belongie 2016, equation 2 (arXiv:1605.06431).

    Example:
        A block that ends with a functional ReLU and, on the skip, has a projection in some of its instances:

        >>> import resnet_lesion as rl, torch
        >>> rl.Branch(entry="conv1", exit="bn2", shortcut="downsample", post=torch.relu).skip
        True
    """

    entry: str | tuple[str, ...]
    exit: str
    shortcut: Transform = None
    preact: Transform = None
    scale: Transform | float = None
    post: Transform = None
    skip: bool = True

    def __post_init__(self) -> None:
        entries = self.entry if isinstance(self.entry, tuple) else (self.entry,)
        for name, value in (*(("entry", entry) for entry in entries), ("exit", self.exit)):
            if not isinstance(value, str):
                raise TypeError(f"expected Branch({name}=...) as the name of a submodule, got {value!r:.60}.")
        for name in ("shortcut", "preact", "scale", "post"):
            value = getattr(self, name)
            is_number = name == "scale" and isinstance(value, int | float)
            if not (value is None or isinstance(value, str) or callable(value) or is_number):
                number = "a number, " if name == "scale" else ""
                raise TypeError(
                    f"expected Branch({name}=...) as {number}the name of a submodule, a function of one tensor or "
                    f"None, got {type(value).__name__} {value!r:.60}."
                )
