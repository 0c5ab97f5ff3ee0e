"""Warnings that point at the line of whoever called, however deep inside the package they are found out."""

from __future__ import annotations

import sys
import warnings

# what lies between a call of the package and the package: contexts, and Captum's mark on its algorithms
_BETWEEN = ("resnet_lesion", "contextlib", "captum")


def warn(text: str) -> None:
    """Warn at the nearest line that is not the package's own."""
    frame, level = sys._getframe(1), 3  # that of the frame behind it
    while frame.f_back and frame.f_back.f_globals.get("__name__", "").partition(".")[0] in _BETWEEN:
        frame, level = frame.f_back, level + 1
    warnings.warn(text, stacklevel=level)
