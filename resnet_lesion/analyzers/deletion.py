"""Delete residual blocks, one at a time or many at random, and see what the network still gets right."""

from __future__ import annotations

import os
from collections.abc import Iterable

import numpy as np
import xarray as xr
from captum.attr._utils.attribution import PerturbationAttribution
from torch import Tensor

from resnet_lesion.analyzers.attribution import BlockAttribution, TargetType, captum_algorithm, score_lost
from resnet_lesion.analyzers.sweep import SweepOptions, sweep
from resnet_lesion.checks import as_counts, as_positive
from resnet_lesion.network.orders import DELETED, delete_each, delete_random
from resnet_lesion.network.paths import remaining_fraction
from resnet_lesion.results.variables import variable
from resnet_lesion.runs.data import Data
from resnet_lesion.runs.executors import Executor, over_shards
from resnet_lesion.runs.run import Run, RunOptions
from resnet_lesion.runs.shards import ShardLike


class Deletion(BlockAttribution, PerturbationAttribution):  # type: ignore[misc]  # Captum ships no types
    r"""Delete residual blocks at test time: the branch goes, the skip stays.

    A block with shortcut :math:`S_i`, branch :math:`F_i` and post :math:`P_i` (a ReLU, or nothing) changes from

    .. math:: y_i = P_i\bigl(S_i(y_{i-1}) + F_i(y_{i-1})\bigr) \quad\text{to}\quad y_i = P_i\bigl(S_i(y_{i-1})\bigr),

    and the branch is not computed. Where the shortcut is the identity and nothing follows, it passes its input on.

    Args:
        model: A model with known residual blocks.

    References:
        Veit, Wilber & Belongie 2016, sections 4.1 and 4.2, figures 3 to 5a (arXiv:1605.06431).

    Example:
        >>> import resnet_lesion as rl, timm, torch
        >>> model = timm.create_model("resnet18", num_classes=10, zero_init_last=False)
        >>> inputs, targets = torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 3])
        >>> deletion = rl.Deletion(model)
        >>> result = deletion.analyze((inputs, targets), show_progress=False)
        >>> result.error.dims, result.layer.values[:2].tolist()
        (('layer',), ['layer1.0', 'layer1.1'])
        >>> deletion.attribute(inputs, target=targets).shape
        torch.Size([4, 8])
    """

    @over_shards
    def analyze(
        self,
        data: Data,
        *,
        n_deleted: int | Iterable[int] | None = None,
        n_draws: int = 10,
        seed: int = 0,
        by_class: bool = False,
        perturbations_per_eval: int | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        shard: ShardLike = None,
        executor: Executor | None = None,
        n_shards: int | None = None,
        show_progress: bool = True,
    ) -> xr.Dataset:
        """Count what the network gets right with blocks deleted.

        Args:
            data: A tuple ``(inputs, targets)`` or an iterable of such batches: inputs (N, ...), targets (N,) classes.
            n_deleted: None to delete each block alone, else how many blocks to delete at random (one number or
                several).
            n_draws: Number of random subsets for each ``n_deleted``.
            seed: Seed of the subsets; each depends on nothing but the seed, its ``n_deleted`` and its ``draw``.
            by_class: Count for each class too.
            perturbations_per_eval: The largest number of lesions in one forward pass; None for what memory holds.
            checkpoint: A folder to keep finished work in; a run that was stopped resumes from there.
            shard: Which part to do, (i, N) for every N-th image from the i-th on; :func:`merge` puts all N together.
            executor: Where to run all ``n_shards`` parts; anything with the interface of ``concurrent.futures``.
            n_shards: How many parts to cut the images into for the executor.
            show_progress: Show a progress bar.

        Returns:
            A Dataset over ``layer``, or over ``n_deleted`` and ``draw``, with ``correct`` images, mean cross-entropy
            ``loss`` in nats, ``agreement`` with the whole network, ``error`` and its 95 % Wilson interval
            ``error_low``, ``error_high``; the scalars ``total``, ``baseline_correct``, ``baseline_error`` and
            ``baseline_loss``; for random subsets also ``deleted`` (n_deleted, draw, layer) and
            ``remaining_fraction`` (n_deleted, path_length).

        Raises:
            TypeError: If the data is of the wrong kind.
            AdapterError: If a block is not what its adapter says, or the engine's outputs are not the model's.
            ValueError: If the labels do not fit the model, or a number is out of bounds.

        Example:
            >>> import resnet_lesion as rl, timm, torch
            >>> model = timm.create_model("resnet18", num_classes=10, zero_init_last=False)
            >>> inputs, targets = torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 3])
            >>> some = {"n_deleted": [1, 4], "n_draws": 3, "show_progress": False}
            >>> result = rl.Deletion(model).analyze((inputs, targets), **some)
            >>> result.error.dims, result.deleted.sum("layer").values.tolist()
            (('n_deleted', 'draw'), [[1, 1, 1], [4, 4, 4]])
        """
        network, n = self.network, len(self.network)
        counting: SweepOptions = {"by_class": by_class, "perturbations_per_eval": perturbations_per_eval}
        how: RunOptions = {"shard": shard, "checkpoint": checkpoint, "show_progress": show_progress}
        if n_deleted is None:
            title = "Error with each residual block deleted alone"
            run = Run(network, "deletion", title, {"n_deleted": None, **counting}, **how)
            each = {"layer": network.layers}
            return run.finish(*sweep(run, data, delete_each(n), each, layers_along="layer", **counting))
        numbers, n_draws = as_counts("n_deleted", n_deleted, 0, n), as_positive("n_draws", n_draws)
        rows = np.stack([delete_random(n, k, seed=seed, draw=draw) for k in numbers for draw in range(n_draws)])
        options = {"n_deleted": numbers, "n_draws": n_draws, "seed": seed, **counting}
        run = Run(network, "random_deletion", "Error with random subsets of residual blocks deleted", options, **how)
        coords = {"n_deleted": numbers, "draw": range(n_draws)}
        dataset, seen = sweep(run, data, rows, coords, layers_along="layer", **counting)
        deleted = (rows == DELETED).reshape(len(numbers), n_draws, n)
        dataset["deleted"] = variable(("n_deleted", "draw", "layer"), deleted, "whether the block is deleted")
        dataset["remaining_fraction"] = remaining_fraction(n, numbers)
        return run.finish(dataset, seen)

    @captum_algorithm
    def attribute(
        self,
        inputs: Tensor,
        target: TargetType = None,
        additional_forward_args: object = None,
        perturbations_per_eval: int | None = None,
        show_progress: bool = False,
    ) -> Tensor:
        """Attribute each image's target score to the blocks: the score lost when a block is deleted.

        This is Captum's feature ablation with blocks for features.

        Args:
            inputs: (N, ...) inputs.
            target: The output that is the score, as everywhere in Captum: a class, or one for each image.
            additional_forward_args: Further arguments of the model.
            perturbations_per_eval: The largest number of lesions in one forward pass; None for what memory holds.
            show_progress: Show a progress bar.

        Returns:
            (N, n_blocks) score of the whole network less the score with the block deleted.

        Raises:
            ValueError: If the inputs are not finite, or the target does not select one score for each image.

        Example:
            >>> import resnet_lesion as rl, timm, torch
            >>> model = timm.create_model("resnet18", num_classes=10, zero_init_last=False)
            >>> inputs, targets = torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 3])
            >>> rl.Deletion(model).attribute(inputs, target=targets).shape
            torch.Size([4, 8])
        """
        rows = delete_each(len(self.network))
        return score_lost(
            self.network, inputs, target, rows, additional_forward_args, perturbations_per_eval, show_progress
        )
