"""How many paths a residual network has, by length: exact combinatorics.

Each path takes the branch or the shortcut at each of n blocks, so 2^n paths have binomially distributed lengths. All
fractions are quotients of exact integers, correctly rounded, for any n.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import comb

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from resnet_lesion.checks import as_counts
from resnet_lesion.network.orders import generator


def draw_path(n_blocks: int, path_length: int, *, seed: int, draw: int) -> NDArray[np.bool_]:
    """Return a uniformly drawn path of that length: an (n_blocks,) mask of the branches that it takes."""
    path = np.zeros(n_blocks, dtype=bool)
    path[generator(seed, path_length, draw).choice(n_blocks, path_length, replace=False)] = True
    return path


def path_counts(n: int) -> xr.DataArray:
    r"""Count the paths of each length, :math:`\binom{n}{k}`.

    Args:
        n: Number of blocks.

    Returns:
        C(n, k) for each ``path_length`` k = 0 ... n, as float64: (n + 1,).

    Raises:
        ValueError: If n is negative.
        OverflowError: If the largest count exceeds float64 (n > 1029); :func:`path_fraction` has no such limit.

    References:
        Veit, Wilber & Belongie 2016, section 3 (arXiv:1605.06431).

    Example:
        >>> import resnet_lesion as rl
        >>> rl.path_counts(3).values.tolist()
        [1.0, 3.0, 3.0, 1.0]
    """
    return _by_length(n, [float(comb(n, k)) for k in range(_checked(n) + 1)], "number of paths")


def path_fraction(n: int) -> xr.DataArray:
    r"""Return the fraction of all paths that have each length, :math:`\binom{n}{k} / 2^n`: Binomial(n, 1/2).

    Args:
        n: Number of blocks.

    Returns:
        C(n, k) / 2^n for each ``path_length`` k = 0 ... n: (n + 1,).

    Raises:
        ValueError: If n is negative.

    References:
        Veit, Wilber & Belongie 2016, figure 6a (arXiv:1605.06431).

    Example:
        More than 95 % of the paths of a 54-block network pass 19 to 35 blocks (figure 6a of the paper):

        >>> import resnet_lesion as rl
        >>> round(float(rl.path_fraction(54).sel(path_length=slice(19, 35)).sum()), 4)
        0.9802
    """
    return _by_length(n, [comb(n, k) / 2**n for k in range(_checked(n) + 1)], "share of all paths")


def remaining_fraction(n: int, n_deleted: int | Iterable[int]) -> xr.DataArray:
    r"""Return the fraction of the paths of each length that remain after deleting blocks.

    With d of n blocks deleted, these are :math:`\binom{n-d}{k} / \binom{n}{k}` of the paths through k blocks.

    Args:
        n: Number of blocks.
        n_deleted: Number of deleted blocks, or several such numbers.

    Returns:
        C(n - n_deleted, k) / C(n, k) for each ``path_length`` k = 0 ... n: (n + 1,), or (n_deleted, n + 1).

    Raises:
        ValueError: If n is negative or n_deleted not within 0 ... n.

    References:
        Veit, Wilber & Belongie 2016, figure 7 (arXiv:1605.06431).

    Example:
        >>> import resnet_lesion as rl
        >>> rl.remaining_fraction(54, 10).sel(path_length=[5, 11, 17]).round(3).values.tolist()
        [0.343, 0.08, 0.015]
    """
    counts = as_counts("n_deleted", n_deleted, 0, _checked(n))
    rows = [
        _by_length(n, [comb(n - d, k) / comb(n, k) for k in range(n + 1)], "share of the paths that remain")
        for d in counts
    ]
    if isinstance(n_deleted, int | np.integer):
        return rows[0]
    return xr.concat(rows, xr.Variable("n_deleted", counts))


def _by_length(n: int, values: list[float], long_name: str) -> xr.DataArray:
    return xr.DataArray(
        values,
        dims="path_length",
        coords={"path_length": np.arange(n + 1)},
        attrs={"long_name": long_name, "units": "1"},
    )


def _checked(n: int) -> int:
    if n < 0:
        raise ValueError(f"expected a number of blocks >= 0, got {n}.")
    return n


def as_path(path: ArrayLike, n_blocks: int) -> NDArray[np.bool_]:
    """Check a path and return it as a (n_blocks,) mask: True for the branch, False for the shortcut.

    Raises:
        ValueError: If it is not one 0 or 1 for each block.
    """
    mask = np.asarray(path)
    if mask.shape != (n_blocks,) or not np.isin(mask, (0, 1)).all():
        raise ValueError(
            f"expected a path as {n_blocks} zeros (shortcut) and ones (branch), one for each block, "
            f"got shape {mask.shape}: {path!r:.80}."
        )
    return mask.astype(bool)
