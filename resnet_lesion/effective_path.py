"""Which path lengths matter: how many paths there are times how much gradient one of them carries."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import reduce
from typing import Literal

import numpy as np
import xarray as xr
from captum.attr._utils.attribution import GradientAttribution
from numpy.typing import NDArray
from torch import Tensor, nn

from resnet_lesion.attribution import TargetType, captum_algorithm
from resnet_lesion.data import Data, refuse_one_shot
from resnet_lesion.measurement import ObjectiveName, norms_of
from resnet_lesion.network import ResidualNetwork, wrap
from resnet_lesion.orders import as_positive, generator
from resnet_lesion.path_gradient import PathGradient, carry_by_length, wrt_block
from resnet_lesion.paths import path_counts, path_fraction
from resnet_lesion.results import origin, provenance, variable

Method = Literal["sample", "exact", "both"]
_TITLE = "Effective path lengths"


class EffectivePath(GradientAttribution):  # type: ignore[misc]  # Captum ships no types
    """The effective paths of a residual network: the lengths that carry almost all of its gradient.

    The paper multiplies the number of paths of each length with the expected magnitude of one path's gradient:
    ``total_gradient(k) = C(n, k) E ||g_k||``, and finds nearly all of it at a few short lengths. Beside it stands the
    exact variant, the norm of the summed gradient of all paths of a length, in which paths may cancel.

    Args:
        model: A model with known residual blocks.

    References:
        Veit, Wilber & Belongie 2016, section 5, figure 6c (arXiv:1605.06431).

    Example:
        >>> import resnet_lesion as rl, timm, torch
        >>> model = timm.create_model("cifar_preactresnet110", pretrained=True)
        >>> data = torch.randn(2, 3, 8, 8), torch.tensor([3, 7])
        >>> result = rl.EffectivePath(model).analyze(data, method="exact", show_progress=False)
        >>> bool(result.sum_effective_low < result.sum_effective_high)
        True
    """

    def __init__(self, model: nn.Module | ResidualNetwork) -> None:
        self.network = wrap(model)
        super().__init__(self.network.model)

    def analyze(
        self,
        data: Data | xr.Dataset,
        *,
        coverage: float = 0.95,
        method: Method = "both",
        objective: ObjectiveName = "cross_entropy",
        wrt: str | None = None,
        n_draws: int = 1000,
        rtol: float | None = None,
        n_bootstrap: int = 1000,
        seed: int = 0,
        memory_limit: int | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        show_progress: bool = True,
    ) -> xr.Dataset:
        """Find the shortest range of path lengths that holds a given share of the gradient.

        Args:
            data: A tuple ``(inputs, targets)`` or an iterable of such batches that can be gone through several times;
                or what ``PathGradient.analyze`` returned, of either method, with all path lengths. The options that
                say how to measure are not used then.
            coverage: The share of the gradient that the range holds at least.
            method: "sample" for the paper's definition, "exact" for the exact sums, or "both".
            objective: What is differentiated: the "cross_entropy" of the labels, or the "score" (logit) of the label.
            wrt: The layer at whose input the gradient is measured; None for the model's input.
            n_draws: Number of random paths of each length.
            rtol: Stop drawing paths of a length once their mean is known to this share of it.
            n_bootstrap: Number of resamplings of the draws for the 95 % intervals.
            seed: Seed of the paths and of the resampling.
            memory_limit: Bytes to take at most, roughly, for the gradients on their way.
            checkpoint: A folder to keep what has been done in, to go on from there when stopped.
            show_progress: Show a progress bar.

        Returns:
            A Dataset over ``path_length`` with ``path_count`` and ``path_fraction``. From sampled paths also
            ``mean_gradient_norm``, ``total_gradient``, ``gradient_share`` and the scalars ``effective_low``,
            ``effective_high`` (the ends of the range) and ``effective_path_fraction`` (the share of all paths that is
            in it), each of the last four with a bootstrap ``..._interval`` over ``quantile``. From exact sums
            ``sum_gradient_norm``, ``sum_gradient_share``, ``sum_effective_low``, ``sum_effective_high`` and
            ``sum_effective_path_fraction``.

        Raises:
            TypeError: If the data is of the wrong kind.
            ValueError: If the data does not fit the model, a path length is missing, or an option is out of bounds.
        """
        if not 0 < coverage <= 1:
            raise ValueError(f"expected a coverage above 0 and up to 1, got {coverage}.")
        n_bootstrap = as_positive("n_bootstrap", n_bootstrap)
        options: dict[str, object] = {"coverage": coverage, "n_bootstrap": n_bootstrap, "seed": seed}
        if isinstance(data, xr.Dataset):
            sources = [data]
        else:
            if method not in ("sample", "exact", "both"):
                raise ValueError(f'expected method "sample", "exact" or "both", got {method!r}.')
            refuse_one_shot(data)
            options |= {"method": method, "objective": objective, "wrt": wrt, "n_draws": n_draws, "rtol": rtol}
            gradient = PathGradient(self.network)
            sources = [
                gradient.analyze(
                    data,
                    method=one,
                    objective=objective,
                    wrt=wrt,
                    n_draws=n_draws,
                    rtol=rtol if one == "sample" else None,
                    seed=seed,
                    memory_limit=memory_limit,
                    checkpoint=checkpoint,
                    show_progress=show_progress,
                )
                for one in ("sample", "exact")
                if method in (one, "both")
            ]
        dataset = effective_paths(sources, coverage, n_bootstrap, seed)
        dataset.attrs |= {name: sources[0].attrs[name] for name in ("data", "wrt") if name in sources[0].attrs}
        return provenance(dataset, origin(self.network, _TITLE, options))

    @captum_algorithm
    def attribute(
        self,
        inputs: Tensor,
        target: TargetType = None,
        additional_forward_args: object = None,
        *,
        effective: xr.Dataset | None = None,
        coverage: float = 0.95,
        wrt: str | None = None,
        memory_limit: int | None = None,
    ) -> Tensor:
        """Return the part of the target score's gradient that travelled effective paths.

        Args:
            inputs: (N, ...) inputs.
            target: The output that is the score, as everywhere in Captum: a class, or one for each image.
            additional_forward_args: Further arguments of the model.
            effective: What :meth:`analyze` returned, whose range is taken (the paper's where it is there, else that of
                the exact sums); None to find the range from the exact sums of these inputs' own gradients.
            coverage: The share of the gradient that such a range holds at least.
            wrt: The layer at whose input the gradient is taken; None for the model's input.
            memory_limit: Bytes to take at most, roughly, for the gradients on their way.

        Returns:
            Gradients shaped like the inputs (or like the layer's input).

        Raises:
            ValueError: If the inputs do not fit the model, or the target does not select one score for each image.
        """
        block = wrt_block(self.network, wrt)

        def carry(longest: int, summarise: Callable[[Tensor], Tensor]) -> Tensor:
            return carry_by_length(
                self.network, inputs, target, additional_forward_args, block, longest, memory_limit, summarise
            )

        if effective is not None:
            prefix = "" if "effective_low" in effective else "sum_"
            low, high = int(effective[f"{prefix}effective_low"]), int(effective[f"{prefix}effective_high"])
        else:
            norms = carry(len(self.network) - (block or 0), lambda gradients: norms_of(gradients).T)
            share = norms.double().mean(0).cpu().numpy()
            low, high = (int(end[0]) for end in shortest_range((share / share.sum())[None], coverage))
        return carry(high, lambda gradients: gradients[low:].sum(0))


def effective_paths(sources: list[xr.Dataset], coverage: float, n_bootstrap: int, seed: int) -> xr.Dataset:
    """Derive the effective path lengths from PathGradient datasets; see ``EffectivePath.analyze``."""
    parts = []
    for source in sources:
        if "path_length" not in source.dims or not {"gradient_norm", "sum_gradient_norm"} & set(source.data_vars):
            raise ValueError("expected a Dataset from PathGradient.analyze, with gradient_norm or sum_gradient_norm.")
        n = source.sizes["layer"]
        if source.path_length.values.tolist() != list(range(n + 1)):
            raise ValueError(
                f"expected all path lengths from 0 to {n}, got {source.sizes['path_length']} of them. "
                "Run PathGradient.analyze without max_path_length."
            )
        parts.append(xr.Dataset({"path_count": path_counts(n), "path_fraction": path_fraction(n)}))
        if "gradient_norm" in source:
            parts.append(_sampled(source, coverage, n_bootstrap, seed))
        if "sum_gradient_norm" in source:
            parts.append(_summed(source, coverage))
    return reduce(lambda a, b: a.merge(b, compat="identical", join="exact"), parts)


def effective_of_study(sampled: xr.Dataset, exact: xr.Dataset) -> xr.Dataset:
    """Derive a study's effective path lengths from its two kinds of gradients, with where they came from."""
    options = {"coverage": 0.95, "n_bootstrap": 1000, "seed": json.loads(sampled.attrs["options"])["seed"]}
    dataset = effective_paths([sampled.merge(exact, compat="identical")], **options)
    attrs = {name: value for name, value in sampled.attrs.items() if name not in ("fingerprint", "shard")}
    return provenance(dataset, attrs | {"title": _TITLE, "options": json.dumps(options)})


def shortest_range(shares: NDArray[np.float64], coverage: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find the shortest contiguous range of path lengths that holds the coverage; of equally short ones the fullest.

    Args:
        shares: (m, n + 1) shares of each path length, one row at a time adding up to 1.
        coverage: The share that the range holds at least.

    Returns:
        The lowest and the highest length in the range, both (m,).
    """
    m, n_lengths = shares.shape
    sums = np.concatenate([np.zeros((m, 1)), np.cumsum(shares, axis=1)], axis=1)
    low, high = np.zeros(m, dtype=np.int64), np.full(m, n_lengths - 1)
    found = np.zeros(m, dtype=bool)
    for width in range(1, n_lengths + 1):
        held = sums[:, width:] - sums[:, :-width]
        start = held.argmax(axis=1)
        # rounding must not keep the full range from holding everything
        new = ~found & (held[np.arange(m), start] >= coverage - 1e-12)
        low[new], high[new] = start[new], start[new] + width - 1
        found |= new
    return low, high


def _sampled(source: xr.Dataset, coverage: float, n_bootstrap: int, seed: int) -> xr.Dataset:
    norms = [row[~np.isnan(row)] for row in source["gradient_norm"].transpose("path_length", "draw").values]
    n = len(norms) - 1
    count, fraction = path_counts(n).values, path_fraction(n).values
    mean = np.array([row.mean() for row in norms])
    share, low, high, inside = _effective((count * mean)[None], fraction, coverage)
    rng = generator(seed, n)
    resampled = np.stack([row[rng.integers(len(row), size=(n_bootstrap, len(row)))].mean(1) for row in norms], axis=1)
    quantiles = np.array([0.025, 0.975])
    replicates = _effective(count * resampled, fraction, coverage)
    shares, lows, highs, insides = (np.quantile(values, quantiles, axis=0) for values in replicates)
    by_length, interval = ("path_length",), ("quantile",)
    return xr.Dataset(
        {
            "mean_gradient_norm": variable(by_length, mean, "mean norm of a single path's gradient"),
            "total_gradient": variable(by_length, count * mean, "number of paths times mean norm of one's gradient"),
            "gradient_share": variable(by_length, share[0], "share of the total gradient"),
            "effective_low": variable((), low[0], "shortest effective path length"),
            "effective_high": variable((), high[0], "longest effective path length"),
            "effective_path_fraction": variable((), inside[0], "share of all paths that is effective"),
            "gradient_share_interval": variable((*interval, *by_length), shares, "share of the total gradient"),
            "effective_low_interval": variable(interval, lows, "shortest effective path length"),
            "effective_high_interval": variable(interval, highs, "longest effective path length"),
            "effective_path_fraction_interval": variable(interval, insides, "share of all paths that is effective"),
        },
        coords={"quantile": quantiles},
    )


def _summed(source: xr.Dataset, coverage: float) -> xr.Dataset:
    norms = source["sum_gradient_norm"].values
    share, low, high, inside = _effective(norms[None], path_fraction(len(norms) - 1).values, coverage)
    by_length = ("path_length",)
    return xr.Dataset(
        {
            "sum_gradient_norm": variable(by_length, norms, "norm of the summed path gradients"),
            "sum_gradient_share": variable(by_length, share[0], "share of the norms of the summed path gradients"),
            "sum_effective_low": variable((), low[0], "shortest effective path length, by summed gradients"),
            "sum_effective_high": variable((), high[0], "longest effective path length, by summed gradients"),
            "sum_effective_path_fraction": variable(
                (), inside[0], "share of all paths that is effective, by summed gradients"
            ),
        }
    )


def _effective(
    totals: NDArray[np.float64], fraction: NDArray[np.float64], coverage: float
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Return shares, ends of the effective range and share of paths in it, for each row of totals."""
    if not totals.sum(1).min() > 0:
        raise ValueError("expected a gradient, got none: every path's gradient is zero.")
    shares = totals / totals.sum(1, keepdims=True)
    low, high = shortest_range(shares, coverage)
    sums = np.concatenate([[0.0], np.cumsum(fraction)])
    return shares, low, high, sums[high + 1] - sums[low]
