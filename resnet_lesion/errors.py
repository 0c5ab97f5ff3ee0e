"""Our own errors; everything else is a TypeError or ValueError."""

from __future__ import annotations

HOW_TO = "docs/how-to/write-an-adapter.md"


class AdapterError(RuntimeError):
    """A block does not behave as its adapter says, or the model does not run its blocks one after another.

    Example:
        >>> import resnet_lesion as rl, torch
        >>> class Halved(torch.nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.body = torch.nn.Identity()
        ...     def forward(self, x):
        ...         return x / 2 + self.body(x)
        >>> @rl.register_adapter(Halved)
        ... def halved(block):
        ...     return rl.Branch(entry="body", exit="body")  # says nothing about the half
        >>> rl.wrap(torch.nn.Sequential(Halved())).verify(torch.ones(1, 2))  # doctest: +IGNORE_EXCEPTION_DETAIL
        Traceback (most recent call last):
        ...
        AdapterError
    """


class PathsError(ValueError):
    """The paths of a network cannot be told apart by their length.

    Example:
        >>> import resnet_lesion as rl, timm
        >>> with rl.wrap(timm.create_model("cifar_vgg15")).routed([1] * 14):  # doctest: +IGNORE_EXCEPTION_DETAIL
        ...     pass
        Traceback (most recent call last):
        ...
        PathsError
    """
