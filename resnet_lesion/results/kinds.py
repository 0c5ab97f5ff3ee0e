"""Which kind of result a dataset is: figures, sentences, tables and merging look up their own entry by its word."""

from __future__ import annotations

from collections.abc import Callable

import xarray as xr

from resnet_lesion.results.gradients import prefix_of
from resnet_lesion.results.quantities import has

# Recognised by what only that analysis returns, so that parts of results, old files, and datasets made by hand are too.
KINDS: dict[str, Callable[[xr.Dataset], bool]] = {
    "deletion": lambda it: has(it, "error", "layer"),
    "random_deletion": lambda it: has(it, "error", "n_deleted"),
    "remaining_paths": lambda it: has(it, "remaining_fraction", "n_deleted", "path_length"),
    "reorder": lambda it: has(it, "kendall_tau"),
    "evaluation": lambda it: has(it, "error", "lesion"),
    "effective_path": lambda it: has(it, f"{prefix_of(it)}gradient_share", "path_length"),
    "path_lengths": lambda it: has(it, "path_fraction", "path_length"),
    # by what EffectivePath leaves out of its result
    "sampled_path_gradient": lambda it: has(it, "gradient_norm", "path_length"),
    "path_gradient": lambda it: has(it, "layer_gradient_norm", "layer", "path_length"),
    "block_statistics": lambda it: has(it, "branch_to_skip_ratio", "layer"),
    "training": lambda it: has(it, "train_loss", "epoch"),
    "comparison": lambda it: has(it, "welch_p_value"),
    "claims": lambda it: has(it, "agrees", "claim"),
    # whatever the lesions, their counts are merged alike
    "lesion_sweep": lambda it: has(it, "correct"),
}
"""How each kind is recognised, the main one first where a dataset is of several."""


def kinds_of(dataset: xr.Dataset) -> tuple[str, ...]:
    """Tell of which kinds a dataset is.

    Args:
        dataset: A result, a part of one, or any other dataset.

    Returns:
        The words of :data:`KINDS` that fit, in their order: several, where one result answers several questions, and
        none for a dataset of something else.

    Example:
        >>> import resnet_lesion as rl
        >>> from resnet_lesion.results.kinds import kinds_of
        >>> kinds_of(rl.path_fraction(54).to_dataset(name="path_fraction"))
        ('path_lengths',)
    """
    return tuple(kind for kind, fits in KINDS.items() if fits(dataset))
