"""Which path lengths matter: how many paths there are times how much gradient one of them carries."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Literal

import xarray as xr
from captum.attr._utils.attribution import GradientAttribution
from torch import Tensor

from resnet_lesion.analyzers.attribution import (
    BlockAttribution,
    TargetType,
    captum_algorithm,
    carry_by_length,
    single_input,
    wrt_block,
)
from resnet_lesion.analyzers.gradient_norms import ObjectiveName, norms_of
from resnet_lesion.analyzers.path_gradient import PathGradient
from resnet_lesion.checks import as_positive
from resnet_lesion.network.paths import path_fraction
from resnet_lesion.results.gradients import effective_lengths, effective_of, effective_range, with_origin
from resnet_lesion.runs.data import Data, refuse_one_shot
from resnet_lesion.runs.executors import Executor

Method = Literal["sample", "exact", "both"]


class EffectivePath(BlockAttribution, GradientAttribution):  # type: ignore[misc]  # Captum ships no types
    r"""The effective paths of a residual network: the lengths that carry almost all of its gradient.

    The paper multiplies the number of paths of each length k through n blocks by the expected magnitude of one path's
    gradient :math:`g_k`, and finds nearly all of the total at a few short lengths, the shortest range of lengths with

    .. math:: \sum_{k=low}^{high} T_k \ge c \sum_{k=0}^n T_k, \qquad T_k = \binom{n}{k} \, \mathrm{E} \lVert g_k \rVert

    for a coverage c. Next to it stands the exact variant, in which :math:`T_k` is the norm of the summed gradient of
    all paths of a length, and paths may cancel.

    Args:
        model: A model with known residual blocks.

    References:
        Veit, Wilber & Belongie 2016, section 5, figure 6c (arXiv:1605.06431).

    Example:
        >>> import resnet_lesion as rl, timm, torch
        >>> model = timm.create_model("cifar_preactresnet110", pretrained=True)
        >>> inputs, targets = torch.randn(2, 3, 8, 8), torch.tensor([3, 7])
        >>> effective = rl.EffectivePath(model)
        >>> result = effective.analyze((inputs, targets), method="exact", show_progress=False)
        >>> bool(result.sum_effective_low < result.sum_effective_high)
        True
        >>> effective.attribute(inputs, target=targets, effective=result).shape
        torch.Size([2, 3, 8, 8])
    """

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
        executor: Executor | None = None,
        n_shards: int | None = None,
        show_progress: bool = True,
    ) -> xr.Dataset:
        """Find the shortest range of path lengths that holds a given fraction of the gradient.

        Args:
            data: A tuple ``(inputs, targets)`` or an iterable of such batches that can be iterated over several times;
                or what ``PathGradient.analyze`` returned, by either method, with all path lengths. The options that say
                how to measure are then ignored, and so is the model: the result is about the one that was measured.
            coverage: The fraction of the gradient that the range must hold.
            method: "sample" for the paper's definition, "exact" for the exact sums, or "both".
            objective: What is differentiated: the "cross_entropy" of the labels, or the "score" (logit) of the label.
            wrt: The layer at whose input the gradient is measured; None for the model's input.
            n_draws: Number of random paths of each length.
            rtol: Stop drawing paths of a length once the standard error of their mean is at most this fraction of it.
            n_bootstrap: Number of resamplings of the draws for the 95 % intervals.
            seed: Seed of the paths and of the resampling.
            memory_limit: Roughly how many bytes to use at most for the gradients being carried.
            checkpoint: A folder to keep finished work in; a run that was stopped resumes from there.
            executor: Where to run all ``n_shards`` parts; anything with the interface of ``concurrent.futures``.
            n_shards: How many parts to cut the images into for the executor.
            show_progress: Show a progress bar.

        Returns:
            A Dataset over ``path_length`` with ``path_count`` and ``path_fraction``. From sampled paths also
            ``mean_gradient_norm``, ``total_gradient``, ``gradient_share`` and the scalars ``effective_low``,
            ``effective_high`` (the ends of the range) and ``effective_path_fraction`` (the fraction of all paths that
            is in it), each of the last four with a bootstrap ``..._interval`` over ``quantile``. From exact sums
            ``sum_gradient_norm``, ``sum_gradient_share``, ``sum_effective_low``, ``sum_effective_high`` and
            ``sum_effective_path_fraction``.

        Raises:
            TypeError: If the data is of the wrong kind.
            AdapterError: If a block is not what its adapter says, or the engine's outputs are not the model's.
            ValueError: If the labels do not fit the model, a path length is missing, a gradient is not finite, or an
                option is out of bounds.

        Example:
            >>> import resnet_lesion as rl, timm, torch
            >>> model = timm.create_model("resnet18", num_classes=10, zero_init_last=False)
            >>> inputs, targets = torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 3])
            >>> some = {"n_draws": 3, "show_progress": False}
            >>> result = rl.EffectivePath(model).analyze((inputs, targets), **some)
            >>> low, high = result.lesion.effective_range()
            >>> bool(result.gradient_share.sel(path_length=slice(low, high)).sum() >= 0.95)
            True
        """
        if not 0 < coverage <= 1:
            raise ValueError(f"expected a coverage above 0 and up to 1, got {coverage}.")
        n_bootstrap = as_positive("n_bootstrap", n_bootstrap)
        options: dict[str, object] = {"coverage": coverage, "n_bootstrap": n_bootstrap, "seed": seed}
        if isinstance(data, xr.Dataset):
            sources = [data]
            options |= {"measured": json.loads(data.attrs.get("options", "{}"))}
        else:
            if method not in ("sample", "exact", "both"):
                raise ValueError(f'expected method "sample", "exact" or "both", got {method!r}.')
            refuse_one_shot(data)
            options |= {"method": method, "objective": objective, "wrt": wrt, "n_draws": n_draws, "rtol": rtol}
            # the shards are PathGradient's: what is derived here follows from all images
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
                    executor=executor,
                    n_shards=n_shards,
                    show_progress=show_progress,
                )
                for one in ("sample", "exact")
                if method in (one, "both")
            ]
        dataset = effective_lengths(sources, coverage, n_bootstrap, seed)
        return with_origin(dataset, sources[0], options)

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
            effective: What :meth:`analyze` returned, whose range is taken (the paper's if it has that, else that of the
                exact sums); None to find one range from the exact sums of all of these inputs' gradients, so that an
                image's attributions depend on the others.
            coverage: The fraction of the gradient that such a range must hold; ignored with ``effective``.
            wrt: The layer at whose input the gradient is taken; None for the model's input.
            memory_limit: Roughly how many bytes to use at most for the gradients being carried.

        Returns:
            Gradients shaped like the inputs (or like the layer's input).

        Raises:
            ValueError: If the inputs are not finite, the target does not select one score for each image, there
                is no gradient, or ``effective`` was measured elsewhere or is no result of :meth:`analyze`.

        Example:
            >>> import resnet_lesion as rl, timm, torch
            >>> model = timm.create_model("resnet18", num_classes=10, zero_init_last=False)
            >>> inputs, targets = torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 3])
            >>> effective = rl.EffectivePath(model)
            >>> effective.attribute(inputs, target=targets).shape
            torch.Size([4, 3, 32, 32])
        """
        block = wrt_block(self.network, wrt)
        n = len(self.network) - (block or 0)

        def carry(longest: int, summarise: Callable[[Tensor], Tensor]) -> Tensor:
            return carry_by_length(
                self.network, inputs, target, additional_forward_args, block, longest, memory_limit, summarise
            )

        if effective is not None:
            if (effective.attrs.get("wrt"), effective.sizes.get("path_length")) != (wrt or "input", n + 1):
                raise ValueError(
                    f"expected effective paths of {n} blocks, measured at {wrt or 'input'!r}, got a dataset of "
                    f"{effective.sizes.get('path_length', 0) - 1} at {effective.attrs.get('wrt')!r}."
                )
            low, high = effective_range(effective)
        else:
            norms = carry(n, lambda gradients: norms_of(gradients).T)
            _, lows, highs, _ = effective_of(norms.mean(0)[None].cpu().numpy(), path_fraction(n).values, coverage)
            low, high = int(lows[0]), int(highs[0])
        return carry(high, lambda gradients: gradients[low:].sum(0)).to(single_input(inputs, self.network.dtype).dtype)
