"""One residual block in its place: how it runs whole, how it runs without its branch, how it is replaced."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

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
        # The shortcut may hand on x or a part of it, into which an in-place ReLU here or behind the block would write;
        # to ask whether it does would keep torch.export, torch.compile and torch.func from tracing this.
        return self.post(self.shortcut(x).clone())

    def with_idle_branch(self, x: Tensor, forward: Forward) -> Tensor:
        """Run the block with zeros from its branch's exit: :meth:`without_branch`, but the branch is computed."""
        if not self.branch.skip:
            return self.without_branch(x)
        with self.part(self.branch.exit).register_forward_hook(_zeros):
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


def _zeros(_module: nn.Module, _args: Any, output: Tensor) -> Tensor:
    return torch.zeros_like(output)


def has_hooks(module: nn.Module) -> bool:
    """Tell whether calling the module does more, or something else, than its class's forward."""
    return "forward" in vars(module) or is_hooked(module)


def is_hooked(module: nn.Module) -> bool:
    """Tell whether hooks are called with the module."""
    return any(getattr(module, hooks) for hooks in _HOOKS)


def is_in_context(module: nn.Module) -> bool:
    """Tell whether an open context (``lesioned``, ``routed``, an analysis) changes what the module does."""
    attached = [vars(module).get("forward"), *(hook for hooks in _HOOKS for hook in getattr(module, hooks).values())]
    return any(isinstance(function, Attached) for function in attached)


class Attached:
    """What a context has put on a module, to be called there until the context ends.

    Args:
        function: What it does.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function."""
        return self.function(*args, **kwargs)

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        """Refuse to be copied or pickled with its module, which would keep it for ever."""
        raise RuntimeError(
            "expected to copy or pickle a model as it is, but a context (lesioned, routed, an analysis) is open on it, "
            "and the copy would stay changed for ever. Copy it before the context begins or after it has ended."
        )


class _Layer(Attached):
    """A function in place of a module's forward, on top of what ran there before."""

    def __init__(self, module: nn.Module, function: Callable[..., Any]) -> None:
        super().__init__(function)
        self.module, self.below = module, module.forward
        self.is_lowest = "forward" not in vars(module)  # below it is the class's own forward
        vars(module)["forward"] = self

    def remove(self) -> bool:
        """Leave the module as if this layer had never been there, whatever lies on top of it; tell whether it could."""
        self.function = self.below  # for those who took this layer for the module's forward
        own = vars(self.module)
        if own.get("forward") is self:
            if self.is_lowest:
                del own["forward"]
            else:
                own["forward"] = self.below
            return True
        above = own.get("forward")
        while isinstance(above, _Layer) and above.below is not self:
            above = above.below
        if not isinstance(above, _Layer):
            return False
        above.below, above.is_lowest = self.below, self.is_lowest
        return True


def is_patched(module: nn.Module) -> bool:
    """Tell whether somebody has replaced the module's forward, what open contexts have put in its place aside."""
    forward = vars(module).get("forward")
    while isinstance(forward, _Layer):
        forward = None if forward.is_lowest else forward.below
    return forward is not None


def in_place_of_forward(module: nn.Module) -> Iterator[Callable[..., Any]]:
    """Yield the functions that open contexts have put in place of a module's forward, that of the last one first."""
    layer = vars(module).get("forward")
    while isinstance(layer, _Layer):
        function = layer.function
        while isinstance(function, _Layer):  # what was there when the context began
            function = function.function
        yield function
        layer = layer.below


@contextmanager
def replaced_forwards(forwards: Mapping[nn.Module, Callable[..., Tensor]]) -> Iterator[None]:
    """Let each module run another function in place of its own ``forward``, and restore it on exit.

    A hook cannot keep the module that it is attached to from running, and a block given an empty batch may fail (batch
    norm in training mode, attention that reshapes). ``Module.__call__`` looks ``forward`` up on the instance, so
    replacing it there computes no deleted branch while all hooks on the block, not only ours, still see its whole input
    and output.

    Such contexts lie on top of one another and may end in any order. A function that calls what the module's
    ``forward`` was when its context began calls what lies below: whatever has ended in the meantime is left out.

    Raises:
        RuntimeError: If other code has replaced a module's ``forward`` too and not put it back. It stays as that code
            left it.
    """
    layers: list[_Layer] = []
    error: BaseException | None = None
    try:
        for module, forward in forwards.items():
            layers.append(_Layer(module, forward))
        yield
    except GeneratorExit:  # a generator that holds the context is closed: nothing went wrong so far
        raise
    except BaseException as raised:
        error = raised
        raise
    finally:
        # all of them, also when one is not found
        lost = [layer.module for layer in reversed(layers) if not layer.remove()]
        if lost:
            text = (
                f"expected the forward of {type(lost[0]).__name__} as it was put there, but other code has replaced it "
                "and not put it back, so it stays as that code left it. Undo there what began after this context."
            )
            if error is None:
                raise RuntimeError(text)
            error.add_note(text)
