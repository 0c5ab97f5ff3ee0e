"""Which adapter describes which class of blocks: registered by class, found by entry point, looked up by block."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable
from contextvars import ContextVar
from functools import cache, singledispatch
from importlib.metadata import entry_points
from typing import TypeAlias, TypeVar

from torch import nn

from resnet_lesion.blocks.branch import Branch
from resnet_lesion.blocks.chain import Chain, Plain, Residual
from resnet_lesion.errors import HOW_TO

ENTRY_POINT_GROUP = "resnet_lesion.adapters"


Adapter: TypeAlias = Callable[..., Branch | Chain | None]


_A = TypeVar("_A", bound=Adapter)


_loading = ContextVar("_loading", default=False)  # of this thread: whether what is registered comes from a package


@singledispatch
def _describe(block: nn.Module) -> Branch | Chain | None:
    raise TypeError(
        f"expected a residual block that an adapter describes, got {_class_name(type(block))}. Register an adapter "
        f"with resnet_lesion.register_adapter; see {HOW_TO}."
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
            if not (_loading.get() and cls in _describe.registry):
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
    adapted = _adapted(type(block))
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
    if not (found is None or isinstance(found, Branch | Chain)):
        raise TypeError(
            f"expected the adapter of {_class_name(type(block))} to return a Branch, a Chain or None, got "
            f"{type(found).__name__} {found!r:.60}; see {HOW_TO}."
        )
    return found


def is_block(module: nn.Module) -> bool:
    """Tell whether some adapter was registered for the module's class or one of its bases."""
    return _adapted(type(module)) is not None


@cache
def load_adapters() -> None:
    """Import, once, every installed package that offers adapters (entry point group ``resnet_lesion.adapters``).

    This happens when a block is first looked up. An adapter that was registered by hand before then stays, as if the
    packages had come first. A package that cannot be imported, or that ends the program, must not take away the blocks
    of all others: a warning names it.
    """
    failures: list[tuple[str, BaseException]] = []
    token = _loading.set(True)
    try:
        for entry_point in entry_points(group=ENTRY_POINT_GROUP):
            try:
                entry_point.load()
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # SystemExit too
                failures.append((entry_point.value, error))
    finally:
        _loading.reset(token)
    for package, reason in failures:  # afterwards: where warnings are errors, the other packages are there all the same
        warnings.warn(f"adapters {package!r} could not be loaded: {type(reason).__name__}: {reason}", stacklevel=2)


def _adapted(cls: type) -> type | None:
    """Return the class itself, or the first of its bases, that an adapter was registered for."""
    load_adapters()
    registry = _describe.registry  # with an entry for every object, which raises
    return next((base for base in cls.__mro__ if base in registry and base is not object), None)


def _class_name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


@register_adapter(Residual)
def _branch_of_residual(block: Residual) -> Branch:
    return Branch(entry="branch", exit="branch", shortcut=None if block.shortcut is None else "shortcut")


@register_adapter(Plain)
def _branch_of_plain(_block: Plain) -> Branch:
    return Branch(entry="branch", exit="branch", skip=False)


def no_blocks(model: nn.Module) -> str:
    """Say what a model without known blocks consists of, and what to do."""
    own = Counter(
        type(module).__qualname__
        for module in model.modules()
        if module is not model
        and not type(module).__module__.startswith("torch.nn")
        and any(True for _ in module.children())
    )
    seen = ", ".join(name for name, _ in own.most_common(5)) or "only torch.nn modules"
    said = (
        f"{type(model).__qualname__} has no residual block that an adapter knows. Its own classes: {seen}. Register an "
        f"adapter for its blocks, see {HOW_TO}; resnet_lesion.supported_models tells which of timm's models need none."
    )
    if any(type(module).__module__.startswith("torchvision.models") for module in model.modules()):
        said += (
            " Of torchvision's models, the ResNets, ResNeXts and Wide ResNets are the same in timm, which takes their "
            "weights: timm.create_model('resnet50').load_state_dict(model.state_dict())."
        )
    return said
