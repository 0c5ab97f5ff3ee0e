"""Small results in the form that the analyzers return them, with values that a test can predict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from resnet_lesion.network.paths import path_counts, path_fraction, remaining_fraction
from resnet_lesion.results.statistics import wilson_interval

N = 12
LAYERS = [f"stages.{i // 4}.blocks.{i % 4}" for i in range(N)]
ATTRS = {
    "title": "A synthetic result",
    "model": "tiny.test",
    "weights_sha256": "0123456789abcdef" * 4,
    "n_blocks": N,
    "n_classes": 10,
    "data": "100 images of shape 3x8x8 from tuple",
    "device": "cpu",
    "dtype": "float32",
    "autocast": "None",
    "versions": '{"torch": "2.6.0"}',
}


def dataset(
    variables: Mapping[str, tuple[Sequence[str], object, str]], coords: Mapping[str, object], **attrs: object
) -> xr.Dataset:
    named = {
        name: (dims, values, {"long_name": long, "units": "1"}) for name, (dims, values, long) in variables.items()
    }
    return xr.Dataset(named, coords=dict(coords), attrs={**ATTRS, **attrs})


def layer_coords() -> dict[str, object]:
    return {
        "layer": LAYERS,
        "stage": ("layer", np.arange(N) // 4),
        "is_downsampling": ("layer", [i in (4, 8) for i in range(N)]),
    }


def lesions(dims: Sequence[str], error: np.ndarray, coords: Mapping[str, object], **more: object) -> xr.Dataset:
    low, high = wilson_interval(np.round(error * 100), 100)
    variables = {
        "error": (dims, error, "error"),
        "error_low": (dims, low, "error, lower end of its 95 % Wilson interval"),
        "error_high": (dims, high, "error, upper end of its 95 % Wilson interval"),
        "loss": (dims, 2 * error, "mean cross-entropy"),
        "agreement": (dims, 1 - error, "share of images predicted as by the whole network"),
        "total": ((), 100, "images"),
        "baseline_error": ((), 0.02, "error of the whole network"),
    }
    return dataset({**variables, **more}, coords)


def training() -> xr.Dataset:
    epochs = np.arange(1, 6)
    variables = {
        "train_loss": (("epoch",), 2 / epochs, "mean cross-entropy"),
        "validation_error": (("epoch",), 0.9 / epochs, "share of the validation images got wrong"),
    }
    return dataset(variables, {"epoch": ("epoch", epochs, {"long_name": "number of passes through the data"})})


def deletion() -> xr.Dataset:
    error = np.full(N, 0.02)
    error[[0, 4]] = 0.5, 0.3
    return lesions(("layer",), error, layer_coords())


def random_deletion() -> xr.Dataset:
    # the means over the draws are 0.1, 0.2 and 0.6
    error = np.array([[0.0, 0.1, 0.2], [0.1, 0.2, 0.3], [0.5, 0.6, 0.7]])
    coords = {"n_deleted": [1, 2, 6], "draw": range(3), "path_length": range(N + 1)}
    result = lesions(("n_deleted", "draw"), error, coords)
    result["remaining_fraction"] = remaining_fraction(N, [1, 2, 6])
    result["n_deleted"].attrs = {"long_name": "number of deleted blocks", "units": "1"}
    result["path_length"].attrs = {"long_name": "number of branches on the path", "units": "1"}
    return result


def reorder() -> xr.Dataset:
    error = np.array([[0.02, 0.04], [0.1, 0.2], [0.5, 0.7]])
    tau = np.array([[0.98, 0.96], [0.9, 0.8], [0.5, 0.3]])
    more = {"kendall_tau": (("n_swaps", "draw"), tau, "Kendall's tau of the order with the original")}
    return lesions(("n_swaps", "draw"), error, {"n_swaps": [1, 4, 9], "draw": range(2)}, **more)


def evaluation() -> xr.Dataset:
    return lesions(("lesion",), np.array([0.02, 0.5, 0.9]), {"lesion": range(3)})


def path_gradient() -> xr.Dataset:
    lengths = np.arange(N + 1)
    table = 2.0 ** -(np.arange(N)[:, None] + lengths[None, :])
    table[lengths[None, :] > N - np.arange(N)[:, None]] = 0
    variables = {
        "sum_gradient_norm": (("path_length",), 2.0**-lengths, "norm of the summed gradient"),
        "layer_gradient_norm": (("layer", "path_length"), table, "norm of the gradient at the block"),
        "convergence_delta": ((), 1e-7, "convergence delta"),
    }
    return dataset(variables, {**layer_coords(), "path_length": lengths})


def sampled_path_gradient() -> xr.Dataset:
    lengths = np.arange(N + 1)
    norms = 0.5 ** lengths[:, None] * np.array([0.8, 1.0, 1.2])
    variables = {
        "gradient_norm": (("path_length", "draw"), norms, "gradient norm"),
        "mean_gradient_norm": (("path_length",), norms.mean(1), "mean gradient norm"),
        "gradient_norm_standard_error": (("path_length",), norms.std(1, ddof=1) / 3**0.5, "standard error"),
    }
    return dataset(variables, {"path_length": lengths, "draw": range(3)})


def effective_path() -> xr.Dataset:
    lengths = np.arange(N + 1)
    total = path_counts(N).values * 0.5**lengths
    fraction = path_fraction(N).values
    variables = {
        "path_count": (("path_length",), path_counts(N).values, "number of paths"),
        "path_fraction": (("path_length",), fraction, "share of all paths"),
        "mean_gradient_norm": (("path_length",), 0.5**lengths, "mean gradient norm"),
        "total_gradient": (("path_length",), total, "number of paths times mean gradient norm"),
        "gradient_share": (("path_length",), total / total.sum(), "share of the total gradient"),
        "effective_low": ((), 2, "shortest effective path"),
        "effective_high": ((), 6, "longest effective path"),
        "effective_path_fraction": ((), fraction[2:7].sum(), "share of all paths"),
    }
    return dataset(variables, {"path_length": lengths})


def block_statistics() -> xr.Dataset:
    ratio = np.linspace(0.1, 1.2, N)
    variables = {
        "branch_to_skip_ratio": (("layer",), ratio, "norm of the branch relative to the skip"),
        "alignment": (("layer",), ratio - 0.5, "cosine of the update with the negative gradient"),
    }
    return dataset(variables, layer_coords())


def tree() -> xr.DataTree:
    makers = [
        deletion,
        random_deletion,
        reorder,
        path_gradient,
        sampled_path_gradient,
        effective_path,
        block_statistics,
    ]
    return xr.DataTree.from_dict({make.__name__: make() for make in makers})
