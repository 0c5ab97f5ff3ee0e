"""Modules that hold several blocks in a row within one forward of their own, opened so that each can be reached.

A transformer block adds two branches in one ``forward``, and a plain network has no block modules at all. A
:class:`Chain` says what such a module computes as links, one after another; while a network is analysed the module runs
its links, and those that are blocks are blocks like any other.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from resnet_lesion.branch import Branch, register_adapter
from resnet_lesion.errors import AdapterError


class Residual(nn.Module):
    """A branch with an identity skip, put together from the modules that make it up: ``x + branch(x)``.

    Args:
        *modules: The modules of the branch in order; they stay where they are in the model too.
    """

    def __init__(self, *modules: nn.Module) -> None:
        super().__init__()
        self.branch = nn.Sequential(*modules)

    def forward(self, x: Tensor) -> Tensor:
        """Add the branch to its input."""
        result: Tensor = x + self.branch(x)
        return result


class Plain(nn.Module):
    """A layer without a skip, whose output has the shape of its input. Deleting it hands its input on.

    Args:
        *modules: The modules of the layer in order; they stay where they are in the model too.
    """

    def __init__(self, *modules: nn.Module) -> None:
        super().__init__()
        self.branch = nn.Sequential(*modules)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer."""
        result: Tensor = self.branch(x)
        return result


class Chain:
    """What a module computes, as links that run one after another.

    Args:
        module: The module whose forward the links make up.
        links: The links by name, in order; :class:`Residual` and :class:`Plain` ones, and those of any class with an
            adapter, are blocks, named ``<module's name>.<link's name>``.
    """

    def __init__(self, module: nn.Module, links: Mapping[str, nn.Module]) -> None:
        self.module, self.links = module, dict(links)

    def __call__(self, x: Tensor, *args: object, **kwargs: object) -> Tensor:
        """Run the links.

        Raises:
            AdapterError: If the module is handed anything else, such as an attention mask, that the links would miss.
        """
        if any(value is not None and value is not False for value in (*args, *kwargs.values())):
            raise AdapterError(
                f"{type(self.module).__name__} was called with more than one tensor ({len(args)} further positional "
                f"arguments, keywords {sorted(kwargs)}), which its links would not get."
            )
        for link in self.links.values():
            x = link(x)
        return x


@register_adapter(Residual)
def _residual(_block: Residual) -> Branch:
    return Branch(entry="branch", exit="branch")


@register_adapter(Plain)
def _plain(_block: Plain) -> Branch:
    return Branch(entry="branch", exit="branch", skip=False)
