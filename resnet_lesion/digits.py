"""scikit-learn's handwritten digits, the data that the embedded network was trained on: nothing to download."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor


def load_digits(split: Literal["train", "test"] = "test") -> tuple[Tensor, Tensor]:
    """Load the 8x8 grey digits as inputs for ``cifar_preactresnet110.digits``.

    The split is fixed (30 % for testing, the same fraction of each class), so that no network of this project has seen
    the test images.

    Args:
        split: "train" (1,257 images) or "test" (540 images).

    Returns:
        Inputs (N, 3, 8, 8), the grey value repeated over three channels and scaled to [-1, 1]; targets (N,), int64.

    Raises:
        ValueError: If there is no such split.
        ModuleNotFoundError: If scikit-learn is not installed (extra ``demo``).

    References:
        Alpaydin & Kaynak 1998, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository.

    Example:
        >>> from resnet_lesion.digits import load_digits
        >>> inputs, targets = load_digits("test")
        >>> inputs.shape, targets.shape
        (torch.Size([540, 3, 8, 8]), torch.Size([540]))
    """
    if split not in ("train", "test"):
        raise ValueError(f"expected split='train' or 'test', got {split!r}.")
    try:
        from sklearn import datasets, model_selection
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("the digits come with scikit-learn: pip install 'resnet-lesion[demo]'") from error
    images, labels = datasets.load_digits(return_X_y=True)
    parts = model_selection.train_test_split(images, labels, test_size=0.3, random_state=0, stratify=labels)
    train_images, test_images, train_labels, test_labels = parts
    images, labels = (train_images, train_labels) if split == "train" else (test_images, test_labels)
    inputs = torch.as_tensor(images, dtype=torch.float32).reshape(-1, 1, 8, 8).expand(-1, 3, -1, -1)
    return (inputs / 8 - 1).contiguous(), torch.as_tensor(labels, dtype=torch.int64)
