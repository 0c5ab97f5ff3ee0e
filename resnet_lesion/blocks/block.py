"""One residual block in its place: how it runs whole, how it runs without its branch, how it is replaced."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from resnet_lesion.blocks.branch import Branch, Transform
from resnet_lesion.errors import HOW_TO, AdapterError

Forward = Callable[[Tensor], Tensor]


_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


@dataclass(frozen=True, eq=False)
class Block:
    """A residual block of a model.

    Attributes:
        layer: Its name, as the model's ``named_modules`` gives it.
        module: The block itself.
        branch: What its residual branch is made of.
    """

    layer: str
    module: nn.Module
    branch: Branch

    @property
    def has_identity_shortcut(self) -> bool:
        """Whether the skip passes its input on unchanged, so that blocks of equal shapes are interchangeable."""
        return self.branch.shortcut is None

    @property
    def entries(self) -> tuple[str, ...]:
        """The names of the submodules where the branch begins."""
        return (self.branch.entry,) if isinstance(self.branch.entry, str) else self.branch.entry

    def part(self, name: str) -> nn.Module:
        """Return one of the block's submodules.

        Raises:
            AdapterError: If the block has no such submodule.
        """
        try:
            return self.module.get_submodule(name)
        except AttributeError as error:
            raise AdapterError(
                f"block {self.layer!r} ({type(self.module).__name__}) has no submodule {name!r}, which {self.branch} "
                f"names. Correct its adapter; see {HOW_TO}."
            ) from error

    def shortcut(self, x: Tensor) -> Tensor:
        """Apply the skip: the identity, or the projection of ``x`` or of its pre-activation."""
        return self._apply(self.branch.shortcut, self._apply(self.branch.preact, x))

    def scale(self, residual: Tensor) -> Tensor:
        """Apply the fixed factor that follows the branch's exit."""
        return self._apply(self.branch.scale, residual)

    def post(self, y: Tensor) -> Tensor:
        """Apply what follows the addition. It may work in place."""
        return self._apply(self.branch.post, y)

    def combine(self, x: Tensor, residual: Tensor) -> Tensor:
        """Put the block together from its input and the branch's output: ``post(shortcut(x) + scale(residual))``."""
        residual = self.scale(residual)
        return self.post(self.shortcut(x) + residual if self.branch.skip else residual)

    def without_branch(self, x: Tensor) -> Tensor:
        """Run the block with its branch deleted: ``post(shortcut(x))``. ``x`` is left alone, also by what follows."""
        y = self.shortcut(x)
        if y.untyped_storage().data_ptr() == x.untyped_storage().data_ptr():
            y = y.clone()  # an in-place ReLU, here or behind the block, would write into x, which others still need
        return self.post(y)

    def with_idle_branch(self, x: Tensor, forward: Forward) -> Tensor:
        """Run the block with zeros from its branch's exit: :meth:`without_branch`, but the branch is computed."""
        if not self.branch.skip:
            return self.without_branch(x)
        with self.part(self.branch.exit).register_forward_hook(lambda _module, _args, output: torch.zeros_like(output)):
            return forward(x)

    @contextmanager
    def kept_residual(self) -> Iterator[Callable[[], Tensor]]:
        """Keep what the branch returns while the block runs.

        Yields:
            A function to call when the block has run: it returns the output of the branch's exit and stops keeping it.
            It raises an AdapterError unless the exit ran exactly once.
        """
        kept: list[Tensor] = []

        def keep(_module: nn.Module, _args: Any, output: Tensor) -> Tensor | None:
            # The block may add the shortcut in place. Where gradients are recorded, it does so to a copy, since the
            # graph may need the values of the output itself; elsewhere it runs exactly as it does unobserved.
            copy = output.clone()
            kept.append(output if output.requires_grad else copy)
            return copy if output.requires_grad else None

        def take() -> Tensor:
            residuals = kept.copy()
            kept.clear()
            if len(residuals) != 1:
                raise AdapterError(
                    f"block {self.layer!r} ({type(self.module).__name__}) ran its branch exit {self.branch.exit!r} "
                    f"{len(residuals)} times; expected once. Name a module that only the branch uses; see {HOW_TO}."
                )
            return residuals[0]

        with self.part(self.branch.exit).register_forward_hook(keep):
            yield take

    def _apply(self, transform: Transform | float, x: Tensor) -> Tensor:
        if transform is None:
            return x
        if isinstance(transform, int | float):
            return transform * x
        function = self.part(transform) if isinstance(transform, str) else transform
        result: Tensor = function(x)
        return result


def has_hooks(module: nn.Module) -> bool:
    """Tell whether calling the module does more, or something else, than its class's forward."""
    return "forward" in vars(module) or any(getattr(module, hooks) for hooks in _HOOKS)


@contextmanager
def replaced_forwards(forwards: Mapping[nn.Module, Callable[..., Tensor]]) -> Iterator[None]:
    """Let each module run another function in place of its own ``forward``, and restore it on exit.

    A hook cannot keep the module that it is attached to from running, and a block given an empty batch may fail (batch
    norm in training mode, attention that reshapes). ``Module.__call__`` looks ``forward`` up on the instance, so
    replacing it there computes no deleted branch while all hooks on the block, not only ours, still see its whole input
    and output.
    """
    before = {module: vars(module).get("forward") for module in forwards}
    try:
        for module, forward in forwards.items():
            vars(module)["forward"] = forward
        yield
    finally:
        for module, own in before.items():
            if own is None:
                vars(module).pop("forward", None)
            else:
                vars(module)["forward"] = own
