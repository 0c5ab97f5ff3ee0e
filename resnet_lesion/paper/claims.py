"""What the paper claims, beside what came out: a row for each claim, with the criterion by which the two agree."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import xarray as xr
from scipy.stats import spearmanr, t, ttest_1samp

from resnet_lesion.network.paths import path_fraction
from resnet_lesion.results.quantities import decay_line
from resnet_lesion.results.variables import variable


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One claim.

    Attributes:
        figure: Where the paper makes it.
        statement: What it says.
        quantity: What is measured for it.
        paper: The paper's value; NaN if it gives none.
        ours: Ours.
        low: Lower end of our 95 % interval; NaN if there is none.
        high: Upper end.
        criterion: When the two agree.
        agrees: Whether they do.
    """

    figure: str
    statement: str
    quantity: str
    paper: float = np.nan
    ours: float
    low: float = np.nan
    high: float = np.nan
    criterion: str
    agrees: bool


def claims(groups: Mapping[str, Any]) -> xr.Dataset:
    """Set the paper's claims beside the results of its networks.

    Args:
        groups: Datasets by name: ``plain/...`` as :func:`resnet_lesion.study` makes them, ``NETWORK/deletion`` for
            ``effective_paths``, ``stochastic_depth``, ``vgg15`` and ``vgg15_bn``, and ``comparison``.

    Returns:
        The fields of :class:`Claim` as variables over ``claim``.

    References:
        Veit, Wilber & Belongie 2016 (arXiv:1605.06431), sections 4 and 5.
    """
    rows = [claim for make in _CLAIMS for claim in make(groups)]
    names = {
        "figure": "where the paper claims it",
        "statement": "what the paper claims",
        "quantity": "what is measured",
        "paper": "the paper's value",
        "ours": "our value",
        "low": "lower end of our 95 % interval",
        "high": "upper end of our 95 % interval",
        "criterion": "when the two agree",
        "agrees": "whether the conclusion is the same",
    }
    variables = {
        field.name: variable(("claim",), np.array([getattr(row, field.name) for row in rows]), names[field.name])
        for field in fields(Claim)
    }
    return xr.Dataset(variables, {"claim": np.arange(len(rows))}, {"title": "The paper's claims and our results"})


def _single_deletion(groups: Mapping[str, Any]) -> list[Claim]:
    deletion = groups["plain/deletion"]
    increase, down = _increase(deletion), deletion.is_downsampling.values
    median = float(np.median(increase[~down]))
    low, high = _median_interval(deletion, ~down)
    at_down = float(increase[down].mean())
    found = [
        Claim(
            figure="3",
            statement="Deleting a block of the residual network has no noticeable impact",
            quantity="median increase of the error with one block deleted, blocks that downsample left out",
            paper=0.0,
            ours=median,
            low=low,
            high=high,
            criterion="the increase is at most 0.01",
            agrees=median <= 0.01,
        ),
        Claim(
            figure="3",
            statement="Only blocks that downsample have a modest impact",
            quantity="mean increase of the error with one downsampling block deleted",
            ours=at_down,
            criterion="it is above the median of the others, and no other block's increase is larger",
            agrees=at_down > median and bool(increase[~down].max() <= increase[down].max()),
        ),
    ]
    for name, words in (("vgg15", "without batch norm"), ("vgg15_bn", "with batch norm")):
        deletion = groups[f"{name}/deletion"]
        error, chance = deletion.error, 1 - 1 / int(deletion.attrs["n_classes"])
        learned = float(deletion.baseline_error) < chance / 2
        found.append(
            Claim(
                figure="3",
                statement=f"Deleting any layer of a plain network leaves chance level ({words})",
                quantity="median error with one layer deleted",
                paper=chance,
                ours=float(error.median()),
                low=float(error.min()),
                high=float(error.max()),
                criterion="the median is at most a tenth below chance level, the whole network's error below half "
                "of it (interval: all layers)",
                agrees=learned and float(error.median()) >= 0.9 * chance,
            )
        )
    return found


def _many_deletions(groups: Mapping[str, Any]) -> list[Claim]:
    error = groups["plain/random_deletion"].error.sortby("n_deleted")
    found = []
    if 10 in error.n_deleted:
        ten = error.sel(n_deleted=10).values
        low, high = _mean_interval(ten)
        found.append(
            Claim(
                figure="5a",
                statement="With 10 random blocks deleted the error is about 0.2",
                quantity="mean error over the draws",
                paper=0.2,
                ours=float(ten.mean()),
                low=low,
                high=high,
                criterion="the difference is at most 0.1",
                agrees=abs(float(ten.mean()) - 0.2) <= 0.1,
            )
        )
    rank = _rank_correlation(error.n_deleted, error.mean("draw"))
    found.append(
        Claim(
            figure="5a",
            statement="The error rises smoothly with the number of deleted blocks",
            quantity="rank correlation of the mean error with the number of deleted blocks",
            ours=rank,
            criterion="it is at least 0.95",
            agrees=rank >= 0.95,
        )
    )
    return found


def _reordering(groups: Mapping[str, Any]) -> list[Claim]:
    if "plain/reorder" not in groups:
        return []
    result = groups["plain/reorder"]
    rank = _rank_correlation(result.kendall_tau, result.error)
    return [
        Claim(
            figure="5b",
            statement="The error rises smoothly with how far the blocks are out of order",
            quantity="rank correlation of the error with Kendall's tau of the order",
            ours=rank,
            criterion="it is at most -0.8",
            agrees=rank <= -0.8,
        )
    ]


def _paths(groups: Mapping[str, Any]) -> list[Claim]:
    sampled, effective = groups["plain/sampled_path_gradient"], groups["plain/effective_path"]
    n = sampled.sizes["path_length"] - 1
    share = float(np.sum(path_fraction(54)[19:36], dtype=float))
    line = decay_line(sampled.mean_gradient_norm)
    half = float(t.ppf(0.975, (sampled.mean_gradient_norm.values > 0).sum() - 2) * line.stderr)
    length_low, length_high = effective.effective_high_interval.values.tolist()
    fraction = float(effective.effective_path_fraction)
    fraction_low, fraction_high = effective.effective_path_fraction_interval.values.tolist()
    return [
        Claim(
            figure="6a",
            statement="More than 95 % of the paths of 54 blocks pass 19 to 35 of them",
            quantity="their share of all paths, exact",
            paper=0.95,
            ours=share,
            criterion="the share is above 0.95",
            agrees=share > 0.95,
        ),
        Claim(
            figure="6b",
            statement="The gradient along a path falls exponentially with its length",
            quantity="slope of log10 of the mean gradient norm against path length",
            ours=float(line.slope),
            low=float(line.slope) - half,
            high=float(line.slope) + half,
            criterion="it is negative, and a straight line explains at least 0.9 of the variance",
            agrees=bool(line.slope < 0 and line.rvalue**2 >= 0.9),
        ),
        Claim(
            figure="6c",
            statement="Almost all of the gradient comes from paths of 5 to 17 blocks",
            quantity="longest effective path length (95 % of the gradient)",
            paper=17.0,
            ours=float(effective.effective_high),
            low=length_low,
            high=length_high,
            criterion="it is below the mean length of all paths",
            agrees=float(effective.effective_high) < n / 2,
        ),
        Claim(
            figure="6c",
            statement="The effective paths are 0.45 % of all paths",
            quantity="share of all paths that have an effective length",
            paper=0.0045,
            ours=fraction,
            low=fraction_low,
            high=fraction_high,
            criterion="the share is at most 0.05",
            agrees=fraction <= 0.05,
        ),
    ]


def _training_on_effective_paths(groups: Mapping[str, Any]) -> list[Claim]:
    result = groups["comparison"]
    p = float(result.welch_p_value) if np.isfinite(result.welch_p_value) else float(result.mcnemar_p_value[0])
    test = "Welch's t-test over the seeds" if np.isfinite(result.welch_p_value) else "McNemar's exact test"
    return [
        Claim(
            figure="section 5",
            statement="Training on effective paths only makes no significant difference to the error",
            quantity="error of the network trained on effective paths less that of the plain one",
            paper=0.0596 - 0.0610,
            ours=float(result.difference),
            low=float(result.difference_low),
            high=float(result.difference_high),
            criterion=f"p > 0.05 in {test} (p = {p:.2g})",
            agrees=p > 0.05,
        )
    ]


def _remaining_paths(groups: Mapping[str, Any]) -> list[Claim]:
    remaining = groups["plain/random_deletion"].remaining_fraction
    if 10 not in remaining.n_deleted or remaining.sizes["path_length"] <= 17:
        return []
    short, long = (float(remaining.sel(n_deleted=10, path_length=k)) for k in (5, 17))
    return [
        Claim(
            figure="7",
            statement="Deletion removes mostly long paths",
            quantity="share of the paths of 17 blocks left by 10 deletions, divided by that of the paths of 5",
            ours=long / short,
            criterion="the share is below 0.5",
            agrees=long / short < 0.5,
        )
    ]


def _stochastic_depth(groups: Mapping[str, Any]) -> list[Claim]:
    plain, dropped = groups["plain/deletion"], groups["stochastic_depth/deletion"]
    difference = _increase(dropped) - _increase(plain)
    down = plain.is_downsampling.values
    low, high = _mean_interval(difference)
    return [
        Claim(
            figure="8",
            statement="A network trained with stochastic depth is slightly more resilient to deletion",
            quantity="mean increase of the error with one block deleted, less that of the plain network",
            ours=float(difference.mean()),
            low=low,
            high=high,
            criterion="it is below 0",
            agrees=float(difference.mean()) < 0,
        ),
        Claim(
            figure="8",
            statement="The difference is mostly at the blocks that downsample",
            quantity="the same for the blocks that downsample",
            ours=float(difference[down].mean()),
            criterion="it is below 0, and below that of the others",
            agrees=bool(difference[down].mean() < min(0, difference[~down].mean())),
        ),
    ]


_CLAIMS: tuple[Callable[[Mapping[str, Any]], list[Claim]], ...] = (
    _single_deletion,
    _many_deletions,
    _reordering,
    _paths,
    _training_on_effective_paths,
    _remaining_paths,
    _stochastic_depth,
)


def _rank_correlation(x: xr.DataArray, y: xr.DataArray) -> float:
    constant = float(x.min()) == float(x.max()) or float(y.min()) == float(y.max())
    result: Any = None if constant else spearmanr(x.values.ravel(), y.values.ravel())
    return 0.0 if constant else float(result.statistic)


def _increase(deletion: xr.Dataset) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.asarray(deletion.error.values - float(deletion.baseline_error), dtype=np.float64)


def _median_interval(deletion: xr.Dataset, chosen: Any) -> tuple[float, float]:
    """Return the medians of the ends of the blocks' own intervals, less the whole network's error."""
    baseline = float(deletion.baseline_error)
    ends = (deletion[name].values[chosen] for name in ("error_low", "error_high"))
    low, high = (float(np.median(end)) - baseline for end in ends)
    return low, high


def _mean_interval(values: Any) -> tuple[float, float]:
    """Return Student's 95 % interval of a mean."""
    if len(values) < 2:
        return np.nan, np.nan
    with warnings.catch_warnings(action="ignore", category=RuntimeWarning):  # of values without spread
        interval = ttest_1samp(values, 0).confidence_interval()
    return float(interval.low), float(interval.high)
