"""Whether a model's outputs are class scores, which can be counted as right and wrong."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


def number_of_classes(model: nn.Module, output: Tensor) -> int:
    """Return the number of classes that a model tells apart.

    Args:
        model: The model.
        output: (N, ...) what it returned.

    Raises:
        ValueError: If these are no scores of classes, or features of a model without a classifier.
    """
    if output.ndim != 2 or output.shape[1] < 2:
        fix = " Let it return two, such as torch.cat([-y, y], 1)." if output.ndim == 2 else ""
        raise ValueError(f"expected class scores (N, classes) from the model, got {tuple(output.shape)}.{fix}")
    n, named, head = output.shape[1], getattr(model, "num_classes", None), _head(model)
    if isinstance(named, int):
        has_classifier = n in (named, getattr(head, "out_features", None))
    else:
        has_classifier = not isinstance(head, nn.Identity)
    if not has_classifier:
        says = f"num_classes={named}" if isinstance(named, int) else f"{type(head).__name__} as its head"
        raise ValueError(
            f"expected class scores (N, classes), got {n} outputs of a model with {says}: these are features. Give it "
            "its classifier, timm.create_model(..., num_classes=N), or set model.num_classes to what its head returns."
        )
    return n


def _head(model: nn.Module) -> nn.Module | None:
    """Return the classifier of a timm model, or what stands in its place in torchvision's."""
    if hasattr(model, "get_classifier"):
        get_classifier: Any = model.get_classifier
        try:
            head = get_classifier()
        except (AttributeError, NotImplementedError):  # it may have been cut off
            return None
        return head if isinstance(head, nn.Module) else None
    found = [getattr(model, name) for name in ("fc", "head", "classifier") if hasattr(model, name)]
    return next((head for head in found if not isinstance(head, nn.Identity)), found[0] if found else None)
