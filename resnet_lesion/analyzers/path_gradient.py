"""Which path lengths carry the gradient: exactly for every length at once, or by sampling paths as the paper did."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Literal

import xarray as xr
from captum.attr._utils.attribution import GradientAttribution
from torch import Tensor

from resnet_lesion.analyzers.attribution import (
    BlockAttribution,
    TargetType,
    captum_algorithm,
    carry_by_length,
    forward_args,
    select_score,
    single_input,
    wrt_block,
)
from resnet_lesion.analyzers.gradient_norms import (
    GradientOptions,
    ObjectiveName,
    convergence_delta,
    exact_norms,
    sampled_norms,
)
from resnet_lesion.checks import as_count, as_counts, as_positive
from resnet_lesion.engines.linearization import full_gradient
from resnet_lesion.results.provenance import layer_coords
from resnet_lesion.runs.data import Data, refuse_one_shot
from resnet_lesion.runs.executors import Executor, over_shards
from resnet_lesion.runs.run import Run, RunOptions
from resnet_lesion.runs.shards import ShardLike


class PathGradient(BlockAttribution, GradientAttribution):  # type: ignore[misc]  # Captum ships no types
    r"""The gradient of a residual network, split by the length of the paths that carry it.

    The gradient is a sum over all 2^n paths, each of which takes the branch or the shortcut at every block. With the
    Jacobians :math:`D_i`, :math:`J_i` and :math:`S_i` of the blocks' posts, branches and shortcuts, and those of what
    comes before and after the blocks, A and B, the sum over all paths of length k is the coefficient of :math:`z^k` in

    .. math:: \sum_{k=0}^n z^k G_k = B \, D_n (S_n + z J_n) \cdots D_1 (S_1 + z J_1) \, A,

    and the gradient is its value at z = 1. ``method="exact"`` carries all coefficients back together;
    ``method="sample"`` draws random paths of each length and measures the norm of each one's gradient. The first gives
    the norm of a sum, in which paths may cancel, the second the mean of norms: they answer different questions.

    Args:
        model: A model with known residual blocks.

    References:
        Veit, Wilber & Belongie 2016, section 5, figure 6 (arXiv:1605.06431).

    Example:
        >>> import resnet_lesion as rl, timm, torch
        >>> model = timm.create_model("cifar_preactresnet110", pretrained=True)
        >>> inputs, targets = torch.randn(2, 3, 8, 8), torch.tensor([3, 7])
        >>> gradient = rl.PathGradient(model)
        >>> short = gradient.attribute(inputs, target=targets, path_length=range(5, 18))
        >>> short.shape
        torch.Size([2, 3, 8, 8])
        >>> gradient.compute_convergence_delta(short, inputs, target=targets).shape
        torch.Size([2])
        >>> result = gradient.analyze((inputs, targets), method="exact", show_progress=False)
        >>> result.sum_gradient_norm.sizes["path_length"], bool(result.convergence_delta < 1e-4)
        (55, True)
    """

    @over_shards
    def analyze(
        self,
        data: Data,
        *,
        method: Literal["exact", "sample"] = "exact",
        objective: ObjectiveName = "cross_entropy",
        wrt: str | None = None,
        max_path_length: int | None = None,
        per_sample: bool = False,
        n_draws: int = 1000,
        rtol: float | None = None,
        seed: int = 0,
        memory_limit: int | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        shard: ShardLike = None,
        executor: Executor | None = None,
        n_shards: int | None = None,
        show_progress: bool = True,
    ) -> xr.Dataset:
        """Measure the gradient that each path length carries, as L2 norms per image averaged over the images.

        Args:
            data: A tuple ``(inputs, targets)`` or an iterable of such batches: inputs (N, ...), targets (N,) classes.
            method: "exact" for the sum over all paths of each length, "sample" for single random paths.
            objective: What is differentiated: the "cross_entropy" of the labels, or the "score" (logit) of the label.
            wrt: The layer at whose input the gradient is measured, counting the paths from there on; None for the
                model's input.
            max_path_length: The longest paths to follow; None for all. It bounds the work.
            per_sample: With "exact", give each image's norms too, as ``sample_sum_gradient_norm``.
            n_draws: With "sample", the number of random paths of each length.
            rtol: With "sample", stop drawing paths of a length once the standard error of their mean is at most this
                fraction of it; ``n_draws`` is then the limit.
            seed: Seed of the paths; each depends on nothing but the seed, its length and its ``draw``.
            memory_limit: Roughly how many bytes to use at most for the gradients being carried; None for a default.
            checkpoint: A folder to keep finished work in; a run that was stopped resumes from there.
            shard: Which part to do, (i, N) for every N-th image from the i-th on; :func:`merge` puts all N together.
            executor: Where to run all ``n_shards`` parts; anything with the interface of ``concurrent.futures``.
            n_shards: How many parts to cut the images into for the executor.
            show_progress: Show a progress bar.

        Returns:
            For "exact", a Dataset with ``sum_gradient_norm`` (path_length), ``layer_gradient_norm`` (layer,
            path_length) at the input of each block (paths from there on; NaN where a path cannot be that long),
            ``full_gradient_norm`` of the ordinary gradient, and ``convergence_delta``: the largest relative deviation
            of an image's gradients, all lengths together, from its ordinary gradient, which with ``max_path_length`` is
            what longer paths carry.
            For "sample", ``gradient_norm`` (path_length, draw), NaN where no path was drawn, ``path`` (path_length,
            draw, layer), ``mean_gradient_norm`` and its ``gradient_norm_standard_error`` (path_length) over the draws,
            and ``n_draws`` (path_length).

        Raises:
            TypeError: If the data is of the wrong kind.
            AdapterError: If a block is not what its adapter says, or the engine's outputs are not the model's.
            ValueError: If the labels do not fit the model, a gradient leaves the range of the dtype, or an option is
                out of bounds.

        Example:
            >>> import resnet_lesion as rl, timm, torch
            >>> model = timm.create_model("resnet18", num_classes=10, zero_init_last=False)
            >>> inputs, targets = torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 3])
            >>> gradient = rl.PathGradient(model)
            >>> exact = gradient.analyze((inputs, targets), method="exact", show_progress=False)
            >>> exact.sum_gradient_norm.sizes["path_length"], exact.layer_gradient_norm.dims
            (9, ('layer', 'path_length'))
            >>> sampled = gradient.analyze((inputs, targets), method="sample", n_draws=2, show_progress=False)
            >>> sampled.path.isel(draw=0).sum("layer").values.tolist()
            [0, 1, 2, 3, 4, 5, 6, 7, 8]
        """
        block = wrt_block(self.network, wrt)
        n = len(self.network) - (block or 0)
        longest = n if max_path_length is None else as_count("max_path_length", max_path_length, 0, n)
        lengths = list(range(longest + 1))
        if method not in ("exact", "sample"):
            raise ValueError(f'expected method "exact" or "sample", got {method!r}.')
        options: dict[str, object] = {"method": method, "objective": objective, "wrt": wrt}
        options |= {"max_path_length": max_path_length, "memory_limit": memory_limit}
        gradients = GradientOptions(objective, block, memory_limit)
        how: RunOptions = {"shard": shard, "checkpoint": checkpoint, "show_progress": show_progress}
        if method == "exact":
            title = "Gradient by path length, summed over all paths"
            run = Run(self.network, "path_gradient", title, options | {"per_sample": per_sample}, **how)
            dataset, seen = exact_norms(run, data, gradients, lengths, per_sample)
        else:
            if per_sample:
                raise ValueError('expected method="exact" with per_sample=True: "sample" averages over the images.')
            n_draws = as_positive("n_draws", n_draws)
            options |= {"n_draws": n_draws, "rtol": rtol, "seed": seed}
            title = "Gradient of random single paths by path length"
            run = Run(self.network, "sampled_path_gradient", title, options, **how)
            if rtol is not None:
                if not 0 < rtol < float("inf"):
                    raise ValueError(f"expected rtol > 0, finite, or None, got {rtol}.")
                if not run.shard.is_whole:
                    raise ValueError("expected rtol=None with a shard: how many paths are drawn depends on all images.")
                refuse_one_shot(data)
            dataset, seen = sampled_norms(run, data, gradients, lengths, n_draws, rtol, seed)
        coords = {name: coord[block or 0 :] for name, coord in layer_coords(self.network).items()}
        dataset = dataset.assign_coords({**coords, "path_length": lengths})
        dataset.attrs["wrt"] = wrt or "input"
        return run.finish(dataset, seen)

    @captum_algorithm
    def attribute(
        self,
        inputs: Tensor,
        target: TargetType = None,
        additional_forward_args: object = None,
        *,
        path_length: int | Iterable[int] | None = None,
        wrt: str | None = None,
        return_convergence_delta: bool = False,
        memory_limit: int | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Return the part of the target score's gradient that travelled paths of these lengths.

        Args:
            inputs: (N, ...) inputs.
            target: The output that is the score, as everywhere in Captum: a class, or one for each image.
            additional_forward_args: Further arguments of the model.
            path_length: One length or several; None for all, which gives ``captum.attr.Saliency(abs=False)``.
            wrt: The layer at whose input the gradient is taken; None for the model's input.
            return_convergence_delta: Return (attributions, delta) as :meth:`compute_convergence_delta` gives it.
            memory_limit: Roughly how many bytes to use at most for the gradients being carried.

        Returns:
            Gradients shaped like the inputs (or like the layer's input), in the inputs' dtype.

        Raises:
            ValueError: If the inputs are not finite, the target does not select one score for each image, or
                there are no paths of such a length.

        Example:
            >>> import resnet_lesion as rl, timm, torch
            >>> model = timm.create_model("resnet18", num_classes=10, zero_init_last=False)
            >>> inputs, targets = torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 3])
            >>> gradient = rl.PathGradient(model)
            >>> parts = [gradient.attribute(inputs, target=targets, path_length=k) for k in range(9)]
            >>> torch.allclose(sum(parts), gradient.attribute(inputs, target=targets), rtol=1e-3, atol=1e-3)
            True
        """
        block = wrt_block(self.network, wrt)
        n = len(self.network) - (block or 0)
        lengths = as_counts("path_length", range(n + 1) if path_length is None else path_length, 0, n)

        def select(gradients: Tensor) -> Tensor:
            return gradients[lengths].sum(0)

        attributions = carry_by_length(
            self.network, inputs, target, additional_forward_args, block, max(lengths), memory_limit, select
        ).to(single_input(inputs, self.network.dtype).dtype)
        if not return_convergence_delta:
            return attributions
        return attributions, self.compute_convergence_delta(
            attributions, inputs, target, additional_forward_args, wrt=wrt
        )

    def has_convergence_delta(self) -> bool:
        """Tell Captum that :meth:`compute_convergence_delta` exists."""
        return True

    def compute_convergence_delta(  # pyright: ignore[reportIncompatibleMethodOverride]  # no start and end points
        self,
        attributions: Tensor | tuple[Tensor],
        inputs: Tensor | tuple[Tensor],
        target: TargetType = None,
        additional_forward_args: object = None,
        *,
        wrt: str | None = None,
    ) -> Tensor:
        r"""Say how far attributions are from the whole gradient: 0 if all path lengths are among them.

        Args:
            attributions: What :meth:`attribute` returned.
            inputs: (N, ...) inputs.
            target: The target they were made with.
            additional_forward_args: Further arguments of the model.
            wrt: The layer they were made with.

        Returns:
            (N,) deviations :math:`\lVert a - g \rVert / \lVert g \rVert` of each image's attributions a from the
            gradient g of its target score.

        Raises:
            ValueError: If the inputs are not finite, or the target does not select one score for each image.

        Example:
            >>> import resnet_lesion as rl, timm, torch
            >>> model = timm.create_model("resnet18", num_classes=10, zero_init_last=False)
            >>> inputs, targets = torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 3])
            >>> gradient = rl.PathGradient(model)
            >>> whole = gradient.attribute(inputs, target=targets)
            >>> bool((gradient.compute_convergence_delta(whole, inputs, target=targets) < 1e-3).all())
            True
        """
        x, extra = single_input(inputs, self.network.dtype), forward_args(additional_forward_args)
        with self.network.isolated():
            whole = full_gradient(
                self.network,
                self.network.to_device(x),
                lambda output: select_score(output, target),
                extra,
                wrt_block(self.network, wrt),
            )
        (attributions,) = attributions if isinstance(attributions, tuple) else (attributions,)
        return convergence_delta(attributions.to(whole), whole)
