"""The contract between a residual network and its adapters: what a block's residual branch is made of."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import singledispatch
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from torch import Tensor, nn

if TYPE_CHECKING:
    from resnet_lesion.chain import Chain

Transform: TypeAlias = str | Callable[[Tensor], Tensor] | None
"""A submodule's name relative to the block, a function of one tensor, or None for the identity."""

ENTRY_POINT_GROUP = "resnet_lesion.adapters"
HOW_TO = "docs/how-to/write-an-adapter.md"


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
        skip: False for a layer of a plain network, ``y = branch(x)``: deleting it hands its input on.

    Shortcut, preact, scale and post are each a :data:`Transform`, so that a functional ReLU or a shortcut without a
    module of its own can be said: ``post=torch.relu``.

    Raises:
        TypeError: If a part is something else.

    References:
        Veit, Wilber & Belongie 2016, equation 2 (arXiv:1605.06431).

    Example:
        A block that ends with a functional ReLU and, on the skip, has a projection in some of its instances:

        >>> import torch
        >>> Branch(entry="conv1", exit="bn2", shortcut="downsample", post=torch.relu).skip
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


Adapter: TypeAlias = Callable[..., "Branch | Chain | None"]
_A = TypeVar("_A", bound=Adapter)


@singledispatch
def _describe(block: nn.Module) -> Branch | Chain | None:
    raise TypeError(
        f"expected a residual block that an adapter describes, got {_class_name(type(block))}. Register an adapter "
        f"with resnet_lesion.register_adapter; see {HOW_TO}. Known block classes: {known_blocks()}."
    )


def register_adapter(*classes: type[nn.Module]) -> Callable[[_A], _A]:
    """Register the decorated function as the adapter of these block classes.

    The function takes a block and returns its :class:`Branch`, or a :class:`Chain` if it holds several branches in a
    row, or None for an instance that has no skip (then it is not a residual block).

    Args:
        *classes: Block classes. A subclass is covered too as long as it does not override ``forward``.

    Returns:
        A decorator that hands its function back unchanged.

    Raises:
        TypeError: If it is given anything but classes.

    Example:
        >>> import resnet_lesion as rl
        >>> from torch import nn
        >>> class Doubled(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.body = nn.Identity()
        ...     def forward(self, x):
        ...         return x + self.body(x)
        >>> @rl.register_adapter(Doubled)
        ... def doubled(block):
        ...     return rl.Branch(entry="body", exit="body")
        >>> rl.find_branch(Doubled()).exit
        'body'
    """
    wrong = [cls for cls in classes if not isinstance(cls, type)]
    if wrong or not classes:
        raise TypeError(f"expected classes of blocks, as @register_adapter(MyBlock), got {wrong or 'none'!r:.60}.")

    def decorate(adapter: _A) -> _A:
        for cls in classes:
            _describe.register(cls, adapter)
        return adapter

    return decorate


def find_branch(block: nn.Module) -> Branch | Chain | None:
    """Look up what the residual branch of one block is made of, or which blocks a module holds in a row.

    Args:
        block: A module of a class that an adapter was registered for.

    Returns:
        Its branch, or the chain of blocks that it is, or None if this instance has no skip.

    Raises:
        TypeError: If no adapter knows the class, it overrides the ``forward`` that its adapter was written for, or the
            adapter returns something else.

    Example:
        >>> import resnet_lesion as rl, timm
        >>> rl.find_branch(timm.create_model("resnet18").layer1[0])
        Branch(entry='conv1', exit='bn2', shortcut=None, preact=None, scale=None, post='act2', skip=True)
    """
    adapted = next((cls for cls in type(block).__mro__ if cls in _known_classes()), None)
    if adapted is not None and getattr(type(block), "forward") is not getattr(adapted, "forward"):  # noqa: B009
        raise TypeError(
            f"{_class_name(type(block))} overrides the forward of {_class_name(adapted)}, so the adapter of that class "
            f"may not describe it. Register an adapter for the subclass; see {HOW_TO}."
        )
    try:
        found = _describe(block)
    except Exception as error:
        if adapted is not None:  # an adapter's own mistake: say whose
            error.add_note(f"in the adapter of {_class_name(adapted)}")
        raise
    if not (found is None or isinstance(found, Branch) or hasattr(found, "links")):
        raise TypeError(
            f"expected the adapter of {_class_name(type(block))} to return a Branch, a Chain or None, got "
            f"{type(found).__name__} {found!r:.60}; see {HOW_TO}."
        )
    return found


def is_block(module: nn.Module) -> bool:
    """Tell whether some adapter was registered for the module's class or one of its bases."""
    return any(cls in _known_classes() for cls in type(module).__mro__)


def load_adapters() -> None:
    """Import every installed package that offers adapters (entry point group ``resnet_lesion.adapters``)."""
    for entry_point in entry_points(group=ENTRY_POINT_GROUP):
        try:
            entry_point.load()
        except Exception as error:  # a stranger's broken package must not take everybody's blocks away
            warnings.warn(f"adapters {entry_point.value!r} could not be loaded: {error}", stacklevel=2)


def known_blocks() -> str:
    """List the block classes that adapters know, for an error message."""
    return ", ".join(sorted(map(_class_name, _known_classes())))


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Suggest the closest known names, for an error message."""
    close = difflib.get_close_matches(name, list(known))
    return f" Did you mean {' or '.join(map(repr, close))}?" if close else ""


def _known_classes() -> set[type]:
    return set(_describe.registry) - {object}


def _class_name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
