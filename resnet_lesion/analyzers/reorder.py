"""Swap residual blocks of the same shapes and see what the network still gets right."""

from __future__ import annotations

import os
from collections.abc import Iterable

import numpy as np
import xarray as xr
from captum.attr._utils.attribution import PerturbationAttribution
from numpy.typing import ArrayLike
from scipy.stats import kendalltau
from torch import Tensor

from resnet_lesion.analyzers.attribution import BlockAttribution, TargetType, captum_algorithm, score_lost
from resnet_lesion.analyzers.sweep import SweepOptions, sweep
from resnet_lesion.checks import as_counts, as_positive
from resnet_lesion.network.orders import IntArray, as_orders, swap_random, whole
from resnet_lesion.network.residual_network import Trace
from resnet_lesion.network.shapes import swappable_pairs
from resnet_lesion.results.variables import variable
from resnet_lesion.runs.data import Data
from resnet_lesion.runs.executors import Executor, over_shards
from resnet_lesion.runs.run import Run, RunOptions
from resnet_lesion.runs.shards import ShardLike


class Reorder(BlockAttribution, PerturbationAttribution):  # type: ignore[misc]  # Captum ships no types
    r"""Reorder residual blocks at test time by swapping random pairs of them.

    Only blocks with an identity skip whose inputs and outputs have the same shape change places; downsampling blocks
    stay where they are. How far an order of n blocks is from the original is its Kendall rank correlation with it,

    .. math:: \tau = \frac{C - D}{n (n - 1) / 2},

    C pairs of blocks being in the original order and D in the opposite one: 1 for the original, 0 for no relation left.

    Args:
        model: A model with known residual blocks.

    References:
        Veit, Wilber & Belongie 2016, section 4.3, figure 5b (arXiv:1605.06431).

    Example:
        >>> import resnet_lesion as rl, timm, torch
        >>> model = timm.create_model("resnet34", num_classes=10, zero_init_last=False)
        >>> inputs, targets = torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 3])
        >>> reorder = rl.Reorder(model)
        >>> result = reorder.analyze((inputs, targets), n_swaps=[0, 2], n_draws=3, show_progress=False)
        >>> result.kendall_tau.sel(n_swaps=0).values.tolist()
        [1.0, 1.0, 1.0]
        >>> reorder.attribute(inputs, target=targets, orders=result.order.sel(n_swaps=2)).shape
        torch.Size([4, 3])
    """

    @over_shards
    def analyze(
        self,
        data: Data,
        *,
        n_swaps: int | Iterable[int] = range(1, 25),
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
        """Count what the network gets right with blocks swapped.

        Args:
            data: A tuple ``(inputs, targets)`` or an iterable of such batches: inputs (N, ...), targets (N,) classes.
            n_swaps: How many pairs to swap, one after another (one number or several).
            n_draws: Number of random orders for each ``n_swaps``.
            seed: Seed of the orders; each depends on nothing but the seed, its ``n_swaps`` and its ``draw``.
            by_class: Count for each class too.
            perturbations_per_eval: The largest number of lesions in one forward pass; None for what memory holds.
            checkpoint: A folder to keep finished work in; a run that was stopped resumes from there.
            shard: Which part to do, (i, N) for every N-th image from the i-th on; :func:`merge` puts all N together.
            executor: Where to run all ``n_shards`` parts; anything with the interface of ``concurrent.futures``.
            n_shards: How many parts to cut the images into for the executor.
            show_progress: Show a progress bar.

        Returns:
            A Dataset over ``n_swaps`` and ``draw`` with ``correct`` images, mean cross-entropy ``loss`` in nats,
            ``agreement`` with the whole network, ``error`` and its 95 % Wilson interval ``error_low``,
            ``error_high``; ``order`` (n_swaps, draw, position) and ``kendall_tau`` (n_swaps, draw); the scalars
            ``total``, ``baseline_correct``, ``baseline_error`` and ``baseline_loss``.

        Raises:
            TypeError: If the data is of the wrong kind.
            AdapterError: If a block is not what its adapter says, or the engine's outputs are not the model's.
            ValueError: If the labels do not fit the model, a number is out of bounds, or no two blocks can be swapped.

        Example:
            >>> import resnet_lesion as rl, timm, torch
            >>> model = timm.create_model("resnet18", num_classes=10, zero_init_last=False)
            >>> inputs, targets = torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 3])
            >>> some = {"n_swaps": [1, 2], "n_draws": 3, "show_progress": False}
            >>> result = rl.Reorder(model).analyze((inputs, targets), **some)
            >>> result.order.dims, bool((result.kendall_tau < 1).any())
            (('n_swaps', 'draw', 'position'), True)
        """
        network, n = self.network, len(self.network)
        numbers = as_counts("n_swaps", n_swaps, 0, np.iinfo(np.int64).max)
        n_draws = as_positive("n_draws", n_draws)

        def swapped(trace: Trace) -> IntArray:
            pairs = swappable_pairs(network, trace)
            if not len(pairs):
                raise ValueError(
                    "expected at least two blocks with identity shortcuts and the same shapes to swap, got none: "
                    f"the {len(network)} blocks of this network are all different."
                )
            return np.stack(
                [swap_random(pairs, n, k, seed=seed, draw=draw) for k in numbers for draw in range(n_draws)]
            )

        counting: SweepOptions = {"by_class": by_class, "perturbations_per_eval": perturbations_per_eval}
        how: RunOptions = {"shard": shard, "checkpoint": checkpoint, "show_progress": show_progress}
        options = {"n_swaps": numbers, "n_draws": n_draws, "seed": seed, **counting}
        run = Run(network, "reorder", "Error with random pairs of residual blocks swapped", options, **how)
        coords = {"n_swaps": numbers, "draw": range(n_draws)}
        dataset, seen = sweep(run, data, swapped, coords, layers_along="position", **counting)
        # SciPy divides by square roots: without rounding, the original order's tau is sometimes 1 - 1e-16
        tau = np.apply_along_axis(lambda row: kendalltau(whole(n), row)[0], -1, dataset.order.values).round(12)
        dataset["kendall_tau"] = variable(("n_swaps", "draw"), tau, "Kendall's tau of the order with the original")
        return run.finish(dataset, seen)

    @captum_algorithm
    def attribute(
        self,
        inputs: Tensor,
        target: TargetType = None,
        additional_forward_args: object = None,
        perturbations_per_eval: int | None = None,
        show_progress: bool = False,
        *,
        orders: ArrayLike,
    ) -> Tensor:
        """Attribute each image's target score to orders: the score lost when the blocks run in that order.

        Args:
            inputs: (N, ...) inputs.
            target: The output that is the score, as everywhere in Captum: a class, or one for each image.
            additional_forward_args: Further arguments of the model.
            perturbations_per_eval: The largest number of lesions in one forward pass; None for what memory holds.
            show_progress: Show a progress bar.
            orders: (n_orders, n_blocks) order rows: at each position the index of the block that runs there, or -1.

        Returns:
            (N, n_orders) score of the whole network less the score with the blocks in that order.

        Raises:
            ValueError: If the orders do not fit, or the target does not select one score for each image.

        Example:
            >>> import resnet_lesion as rl, timm, torch
            >>> model = timm.create_model("resnet18", num_classes=10, zero_init_last=False)
            >>> inputs, targets = torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 3])
            >>> rl.Reorder(model).attribute(inputs, target=targets, orders=[[1, 0, 2, 3, 4, 5, 6, 7]]).shape
            torch.Size([4, 1])
        """
        rows = as_orders(orders, len(self.network))
        return score_lost(
            self.network, inputs, target, rows, additional_forward_args, perturbations_per_eval, show_progress
        )
