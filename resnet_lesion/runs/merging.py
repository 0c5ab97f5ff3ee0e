"""Put the results of shards together: what was counted adds up to exactly what one run counts."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from resnet_lesion.results import storage
from resnet_lesion.results.gradients import effective_of_study, over_draws
from resnet_lesion.results.kinds import kinds_of
from resnet_lesion.results.lesions import lesion_rates
from resnet_lesion.runs.checkpoint import as_object, differences
from resnet_lesion.runs.shards import Shard

Result = xr.Dataset | xr.DataTree

# a file can say that there are as many shards as it likes; more missing ones than these are not named
_MANY = 10_000

# dimensions that merging goes by the coordinates of
_NUMBERED = ("sample", "path_length")


def merge(results: Iterable[Result | str | os.PathLike[str]]) -> Result:
    """Merge the results of all shards of a run.

    Args:
        results: The shards' results, or the files that they were saved to, in any order. Datasets from any analyzer's
            ``analyze``, from :func:`evaluate` or trees from :func:`study`.

    Returns:
        What one run over all images and lesions returns. Counts are exactly the same; means over the images are the
        shards' means weighted by their images, added exactly, so that they do not depend on the order of the shards,
        but may differ from one run's in the last digits, as do the outputs where images share a batch with others.

    Raises:
        TypeError: If a result is something else.
        ValueError: If the results are not shards, not of one run, or do not make up all of it, each part once.

    Example:
        >>> import resnet_lesion as rl, timm, torch
        >>> deletion = rl.Deletion(timm.create_model("resnet18", num_classes=10, zero_init_last=False))
        >>> data = torch.randn(6, 3, 32, 32), torch.arange(6)
        >>> shards = [deletion.analyze(data, shard=(i, 3), show_progress=False) for i in range(3)]
        >>> result = rl.merge(shards)
        >>> int(result.total)
        6
    """
    if isinstance(results, str | os.PathLike | xr.Dataset | xr.DataTree):
        raise TypeError("expected several results or files, as rl.merge([first, second]), got one.")
    results = list(results)
    files = [os.path.realpath(result) for result in results if isinstance(result, str | os.PathLike)]
    if twice := [name for name in dict.fromkeys(files) if files.count(name) > 1]:
        raise ValueError(f"expected each file once, got {', '.join(map(repr, twice))} twice.")
    opened = [result if isinstance(result, xr.Dataset | xr.DataTree) else storage.open(result) for result in results]
    if not opened:
        raise ValueError("expected the results of shards, got none.")
    if all(isinstance(result, xr.Dataset) for result in opened):
        return _merge_datasets([result for result in opened if isinstance(result, xr.Dataset)])
    if not all(isinstance(result, xr.DataTree) for result in opened):
        raise TypeError("expected Datasets or DataTrees, got some of each.")
    return _merge_trees([result for result in opened if isinstance(result, xr.DataTree)])


def _merge_trees(trees: Sequence[xr.DataTree]) -> xr.DataTree:
    groups = [{node.path: node.to_dataset(inherit=False) for node in tree.subtree if node.data_vars} for tree in trees]
    names = set(groups[0])
    for other in groups:
        if set(other) != names:
            raise ValueError(f"expected the same groups in all trees, got {sorted(names)} and {sorted(other)}.")
    merged = {name: _merge_datasets([group[name] for group in groups]) for name in groups[0]}
    if {"/path_gradient", "/sampled_path_gradient"} <= names:
        merged["/effective_path"] = effective_of_study(merged["/sampled_path_gradient"], merged["/path_gradient"])
    tree = xr.DataTree.from_dict(merged)
    tree.attrs |= trees[0].attrs
    return tree


def _merge_datasets(datasets: Sequence[xr.Dataset]) -> xr.Dataset:
    shards = [_shard_of(dataset) for dataset in datasets]
    _require_one_run(datasets)
    _require_all(shards)
    _require_alike(datasets)
    by_shard = dict(zip(shards, datasets, strict=True))
    n, m = shards[0].data[1], shards[0].lesions[1]
    shares = [_over_images([by_shard[Shard((i, n), (j, m))] for i in range(n)]) for j in range(m)]
    merged = _over_lesions(shares)
    merged.attrs |= {
        "data": f"{int(merged.total)} images{datasets[0].attrs['data'].partition(' images')[2]}",
        "created": max(str(dataset.attrs["created"]) for dataset in datasets),
        "device": "; ".join(dict.fromkeys(str(dataset.attrs["device"]) for dataset in datasets)),
    }
    merged.attrs = {name: value for name, value in merged.attrs.items() if name not in ("shard", "n_images", "proof")}
    if all("proof" in dataset.attrs for dataset in datasets):
        merged.attrs["proof"] = json.dumps(_worst([as_object(dataset.attrs["proof"]) for dataset in datasets]))
    return merged


def _worst(proofs: Sequence[Mapping[str, object]]) -> dict[str, object]:
    """Return what holds in all of several proofs, and of each deviation the largest that was measured."""
    found: dict[str, object] = {}
    for name in proofs[0]:
        values = [proof.get(name) for proof in proofs]
        if all(isinstance(value, bool) for value in values):
            found[name] = all(values)
        else:
            found[name] = max((value for value in values if isinstance(value, int | float)), default=None)
    return found


def _shard_of(dataset: xr.Dataset) -> Shard:
    if "shard" not in dataset.attrs or "fingerprint" not in dataset.attrs:
        raise ValueError(
            f"expected results of shards, got {dataset.attrs.get('title', 'a Dataset')!r} of "
            "a whole run. Run analyze(data, shard=(i, N)) for each i."
        )
    missing = [name for name in ("data", "created", "device") if not isinstance(dataset.attrs.get(name), str)]
    missing += [name for name in ("total", "skipped") if dataset.get(name, xr.DataArray([])).size != 1]
    if missing:
        raise ValueError(f"expected the result of a shard, got one without its {', '.join(missing)}.")
    try:
        return Shard.from_json(str(dataset.attrs["shard"]))
    except (AttributeError, TypeError, ValueError, LookupError) as error:
        text = str(dataset.attrs["shard"])
        raise ValueError(f"expected to read which shard a result is, got {text!r:.80}.") from error


def _require_one_run(datasets: Sequence[xr.Dataset]) -> None:
    prints = [as_object(dataset.attrs["fingerprint"]) for dataset in datasets]
    for other in prints:
        if found := differences(prints[0], other):
            raise ValueError(f"expected shards of one run, but {found}.")
    n_images = sorted(_n_images(datasets))
    if len(n_images) > 1:
        raise ValueError(f"expected shards of the same images, got shards of {' and of '.join(map(str, n_images))}.")


def _n_images(datasets: Sequence[xr.Dataset]) -> set[int]:
    """Return how many images the results say that all shards hold together; those of version 0.1.0 do not say it."""
    said = [dataset.attrs.get("n_images") for dataset in datasets]
    return {int(n) for n in said if isinstance(n, int | np.integer)}


def _require_all(shards: Sequence[Shard]) -> None:
    for kind in ("data", "lesions"):
        counts = {getattr(shard, kind)[1] for shard in shards}
        if len(counts) > 1:
            raise ValueError(f"expected the {kind} cut into as many parts everywhere, got {sorted(counts)}.")
    n, m = shards[0].data[1], shards[0].lesions[1]
    if n * m - len(shards) > _MANY:
        raise ValueError(f"expected all {n * m} shards, got {len(shards)}.")
    wanted = [Shard((i, n), (j, m)) for i in range(n) for j in range(m)]
    found = Counter(shards)
    missing = [str(shard) for shard in wanted if shard not in found]
    twice = [str(shard) for shard in wanted if found[shard] > 1]
    if missing or twice:
        words = [
            f"shard {', '.join(names)} {what}" for names, what in ((missing, "missing"), (twice, "twice")) if names
        ]
        raise ValueError(f"expected each shard once, got {' and '.join(words)}.")


def _require_alike(datasets: Sequence[xr.Dataset]) -> None:
    """Refuse results that differ in more than the values of their variables."""

    def outline(dataset: xr.Dataset) -> dict[str, object]:
        found: dict[str, object] = {str(name): array.dims for name, array in dataset.data_vars.items()}
        found |= {f"the size of {name}": size for name, size in dataset.sizes.items() if name != "sample"}
        coords = {str(name): array for name, array in dataset.coords.items() if "sample" not in array.dims}
        found |= {f"the coordinate {name}": array.values.tolist() for name, array in coords.items()}
        return found

    first = outline(datasets[0])
    for dataset in datasets:
        if (other := outline(dataset)) != first:
            raise ValueError(
                f"expected shards with the same variables and coordinates, but {differences(first, other)}."
            )
        bare = [str(name) for name in dataset.dims if name in _NUMBERED and name not in dataset.coords]
        if bare:
            raise ValueError(f"expected a coordinate for {', '.join(bare)}, got a result without.")


def _over_images(parts: Sequence[xr.Dataset]) -> xr.Dataset:
    """Merge results of different images, by what their variables say they are over the images."""
    n_images = [int(part.total + part.skipped) for part in parts]
    expected = [len(range(i, sum(n_images), len(parts))) for i in range(len(parts))]
    if n_images != expected:
        raise ValueError(f"expected shards of {expected} images if all {sum(n_images)} were read, got {n_images}.")
    for said in _n_images(parts) - {sum(n_images)}:
        raise ValueError(f"expected shards that hold all {said} images together, got {n_images}.")
    if len(parts) == 1:
        return parts[0].copy()
    weights = [int(part.total) for part in parts]
    samples = [part[[name for name in part.data_vars if "sample" in part[name].dims]] for part in parts]
    merged = parts[0].drop_dims("sample", errors="ignore").copy()
    differing = []
    for name, array in merged.data_vars.items():
        values = [part[name].values for part in parts]
        method = str(array.attrs.get("cell_methods", "")).removeprefix("sample: ")
        if method in _METHODS:
            merged[name] = (array.dims, _METHODS[method](values, weights), array.attrs)
        elif not all(np.array_equal(values[0], other, equal_nan=array.dtype.kind == "f") for other in values):
            differing.append(name)
    merged = _followed(merged.drop_vars(differing))
    unknown = [str(name) for name in differing if name not in merged]
    if unknown:
        raise ValueError(f"expected {', '.join(unknown)} to be equal in all shards, but they differ.")
    if samples[0].data_vars:
        merged = merged.merge(xr.concat(samples, "sample").sortby("sample"))
    return merged


def _over_lesions(shares: Sequence[xr.Dataset]) -> xr.Dataset:
    """Merge results of different lesions: every lesion is taken from where it was evaluated."""
    merged = shares[0]
    if len(shares) == 1:
        return merged
    if "evaluated" not in merged or "baseline_correct" not in merged:
        raise ValueError("expected parts of the lesions with evaluated and baseline_correct, got some without.")
    evaluated = [share.evaluated for share in shares]
    if not (np.sum([mask.values for mask in evaluated], axis=0) == 1).all():
        raise ValueError("expected every lesion in one part, got some in none or in several.")
    baselines = {int(share.baseline_correct) for share in shares}
    if len(baselines) > 1:
        raise ValueError(
            "expected the whole network to be right equally often in all parts of the lesions, got "
            f"{sorted(baselines)} images. Did the parts run on different kinds of devices?"
        )
    for name, array in merged.data_vars.items():
        if "cell_methods" in array.attrs and set(evaluated[0].dims) <= set(array.dims):
            for share, mask in zip(shares, evaluated, strict=True):
                merged[name] = share[name].where(mask, merged[name]).astype(array.dtype).assign_attrs(array.attrs)
    for name in ("block_evaluations", "naive_block_evaluations"):
        merged.attrs[name] = sum(int(share.attrs[name]) for share in shares)
    return _followed(merged.drop_vars("evaluated"))


def _followed(dataset: xr.Dataset) -> xr.Dataset:
    """Return the dataset with what follows from its counts or norms."""
    for kind in kinds_of(dataset):
        dataset = FOLLOWING[kind](dataset) if kind in FOLLOWING else dataset
    return dataset


FOLLOWING: dict[str, Callable[[xr.Dataset], xr.Dataset]] = {
    "lesion_sweep": lesion_rates,
    "sampled_path_gradient": over_draws,
}
"""What follows, in a result of each kind, from what is over the images, and is not over the images itself."""


def _sum(values: Sequence[Any], _weights: Sequence[int]) -> Any:
    return np.sum(values, axis=0)


def _mean(values: Sequence[Any], weights: Sequence[int]) -> Any:
    """Return the mean over all images, rounded once, so that it does not depend on the order of the shards."""
    sums = np.stack([value * weight for value, weight in zip(values, weights, strict=True)])
    exact = [math.fsum(column) for column in sums.reshape(len(values), -1).T.tolist()]
    return np.array(exact).reshape(sums.shape[1:]) / sum(weights)


def _maximum(values: Sequence[Any], _weights: Sequence[int]) -> Any:
    return np.max(values, axis=0)


_METHODS: Mapping[str, Callable[[Sequence[Any], Sequence[int]], Any]] = {
    "sum": _sum,
    "mean": _mean,
    "maximum": _maximum,
}
