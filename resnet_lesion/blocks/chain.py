"""Modules that hold several blocks in a row within one forward of their own, opened so that each can be reached.

A transformer block adds two branches in one ``forward``, and a plain network has no block modules at all. A
:class:`Chain` says what such a module computes as links, one after another; while a network is analysed the module runs
its links, and those that are blocks are blocks like any other.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TypeAlias

from torch import Tensor, nn

from resnet_lesion.errors import AdapterError

Step: TypeAlias = nn.Module | Callable[[Tensor], Tensor]
"""A part of a branch: a module of the model, or a function of one tensor that calls such modules."""


class Residual(nn.Module):
    """A branch with a skip, put together from the steps that make it up: ``shortcut(x) + branch(x)``.

    Args:
        *steps: What the branch does, in order. Modules stay where they are in the model too.
        shortcut: The projection on the skip, or None for an identity shortcut.

    Example:
        >>> import resnet_lesion as rl, torch
        >>> rl.Residual(torch.nn.Identity(), lambda x: 2 * x)(torch.ones(2))
        tensor([3., 3.])
    """

    def __init__(self, *steps: Step, shortcut: Step | None = None) -> None:
        super().__init__()
        self.branch = nn.Sequential(*map(_module, steps))
        self.shortcut = None if shortcut is None else _module(shortcut)

    def forward(self, x: Tensor) -> Tensor:
        """Add the branch to its input, or to the input's projection."""
        result: Tensor = (x if self.shortcut is None else self.shortcut(x)) + self.branch(x)
        return result


class Plain(nn.Module):
    """A layer without a skip, whose output has the shape of its input. Deleting it passes its input on.

    Args:
        *steps: What the layer does, in order. Modules stay where they are in the model too.

    Example:
        >>> import resnet_lesion as rl, torch
        >>> rl.Plain(torch.nn.Identity(), lambda x: 2 * x)(torch.ones(2))
        tensor([2., 2.])
    """

    def __init__(self, *steps: Step) -> None:
        super().__init__()
        self.branch = nn.Sequential(*map(_module, steps))

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer."""
        result: Tensor = self.branch(x)
        return result


class Function(nn.Module):
    """A function of one tensor as a module, such as a reshape between two links.

    Args:
        function: The function.

    Example:
        >>> import resnet_lesion as rl, torch
        >>> rl.Function(torch.relu)(torch.tensor([-1.0, 1.0]))
        tensor([0., 1.])
    """

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        """Apply the function."""
        return self.function(x)


class _Running(threading.local):
    """The arguments of the chains that this thread runs, the innermost last: calls nest, and threads have their own."""

    def __init__(self) -> None:
        self.calls: list[Arguments] = []


class Arguments:
    """What a chain's module is called with besides the tensor, for steps that read it: a rotary embedding, a size.

    While a chain runs, each step reads what that call was given, even the step of a block that a reordering put there:
    the arguments belong to the position. Otherwise a step reads what its own chain was given last.

    Args:
        *names: The parameters of the module's ``forward`` that the steps read. They may not depend on the images, as
            several lesions' images share a call.

    Example:
        A module that computes ``x + scale * layer(x)`` with the ``scale`` that it is called with:

        >>> import resnet_lesion as rl, torch
        >>> class Scaled(torch.nn.Module):
        ...     def forward(self, x, scale):
        ...         return x + scale * x
        >>> given = rl.Arguments("scale")
        >>> chain = rl.Chain(Scaled(), {"layer": rl.Residual(lambda x: given["scale"] * x)}, given)
        >>> chain(torch.ones(2), 0.5)
        tensor([1.5000, 1.5000])
    """

    _running = _Running()

    def __init__(self, *names: str) -> None:
        self.names = names
        self._values: dict[str, object] | None = None

    def __getitem__(self, name: str) -> object:
        source = self._running.calls[-1] if self._running.calls else self
        if source._values is None or name not in source.names:
            raise AdapterError(
                f"a block reads the argument {name!r}, which the model does not give here: it gives "
                f"{list(source.names) or 'none'}. Move blocks only among those called alike, in a forward pass."
            )
        return source._values.get(name)


class Chain:
    """What a module computes, as links that run one after another.

    Args:
        module: The module whose forward the links make up.
        links: The links by name, in order; :class:`Residual` and :class:`Plain` ones, and those of any class with an
            adapter, are blocks, named ``<module's name>.<link's name>``. A link without a name takes the module's.
        arguments: The further arguments that the links' steps read.

    Example:
        >>> import resnet_lesion as rl, torch
        >>> from torch import nn
        >>> norm, layer = nn.LayerNorm(4), nn.Linear(4, 4)
        >>> chain = rl.Chain(nn.Sequential(norm, layer), {"norm": rl.Residual(norm), "layer": rl.Plain(layer)})
        >>> chain(torch.zeros(2, 4)).shape
        torch.Size([2, 4])
    """

    def __init__(self, module: nn.Module, links: Mapping[str, nn.Module], arguments: Arguments | None = None) -> None:
        self.module, self.links = module, dict(links)
        self.arguments = arguments or Arguments()

    @cached_property
    def _parameters(self) -> list[str]:
        return list(inspect.signature(type(self.module).forward).parameters)[2:]  # after self and x

    def __call__(self, x: Tensor, *args: object, **kwargs: object) -> Tensor:
        """Run the links.

        Raises:
            AdapterError: If the module is handed anything that its links do not read, such as an attention mask.
        """
        given = dict(zip(self._parameters, args, strict=False)) | kwargs if args else kwargs
        for name, value in given.items():
            if name not in self.arguments.names and value is not None and value is not False:
                raise AdapterError(
                    f"{type(self.module).__name__} was called with more than one tensor: {name!r} is not read by its "
                    f"links {list(self.links)}."
                )
        self.arguments._values = given
        Arguments._running.calls.append(self.arguments)
        try:
            for link in self.links.values():
                x = link(x)
        finally:
            Arguments._running.calls.pop()
        return x


def _module(step: Step) -> nn.Module:
    return step if isinstance(step, nn.Module) else Function(step)
