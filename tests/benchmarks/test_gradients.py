"""Gradient norms that deviate are found out."""

import numpy as np
import pytest

from benchmarks import gradients, lesions


def test_wrong_norms_are_found():
    gradients.check("loop", np.array([1.0, 2.0]), np.array([1.0, 2.001]))
    with pytest.raises(lesions.WrongResultError, match=r"got a relative deviation of 0\.5"):
        gradients.check("loop", np.array([1.0, 3.0]), np.array([1.0, 2.0]))
    with pytest.raises(lesions.WrongResultError, match="relative deviation of nan"):
        gradients.check("loop", np.array([np.nan]), np.array([1.0]))
