"""What each block does to the signal that passes it: sizes and directions, in one cheap pass."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import Any

import torch
import xarray as xr
from torch import Tensor, nn

from resnet_lesion.analyzers.gradient_norms import GradientOptions, Microbatch, ObjectiveName, microbatches
from resnet_lesion.blocks.block import Block
from resnet_lesion.engines.linearization import at_output, in_range
from resnet_lesion.network.refusals import refuse_inference_tensors
from resnet_lesion.network.residual_network import ResidualNetwork, wrap
from resnet_lesion.results.provenance import layer_coords
from resnet_lesion.results.variables import variable
from resnet_lesion.runs.data import Data
from resnet_lesion.runs.executors import Executor, over_shards
from resnet_lesion.runs.run import Run, RunOptions
from resnet_lesion.runs.shards import ShardLike


class BlockStatistics:
    r"""Branch against skip, input against output, and update against gradient, block by block.

    Averages over the images of

    .. math:: \frac{\lVert F_i \rVert}{\lVert S_i \rVert}, \qquad \cos(S_i, y_i), \qquad
        \cos\Bigl(F_i, -\frac{\partial \ell}{\partial (S_i + F_i)}\Bigr)

    for a block's branch :math:`F_i`, skip :math:`S_i` and output :math:`y_i` on an image with loss :math:`\ell`, each
    flattened to a vector. They explain lesion curves: a block whose branch is small compared with its skip, or whose
    output points where its input did, is hardly missed.

    Args:
        model: A model with known residual blocks.

    References:
        De & Smith 2020 (arXiv:2002.10444) for the branch-to-skip ratio; Men et al. 2024, ShortGPT (arXiv:2403.03853)
        for the cosine of input and output; Jastrzebski et al. 2018 (arXiv:1710.04773) for the cosine of a block's
        update and the negative gradient.

    Example:
        >>> import resnet_lesion as rl, timm, torch
        >>> model = timm.create_model("cifar_preactresnet110", pretrained=True)
        >>> data = torch.randn(2, 3, 8, 8), torch.tensor([3, 7])
        >>> result = rl.BlockStatistics(model).analyze(data, show_progress=False)
        >>> sorted(result.data_vars)[:3]
        ['branch_to_skip_ratio', 'input_output_cosine', 'skipped']
    """

    def __init__(self, model: nn.Module | ResidualNetwork) -> None:
        """Take the model to analyse, as the class says."""
        self.network = wrap(model)

    @over_shards
    def analyze(
        self,
        data: Data,
        *,
        objective: ObjectiveName = "cross_entropy",
        checkpoint: str | os.PathLike[str] | None = None,
        shard: ShardLike = None,
        executor: Executor | None = None,
        n_shards: int | None = None,
        show_progress: bool = True,
    ) -> xr.Dataset:
        """Measure every block in one forward and backward pass over the data.

        Args:
            data: A tuple ``(inputs, targets)`` or an iterable of such batches: inputs (N, ...), targets (N,) classes.
            objective: Whose gradient the update is compared with: the "cross_entropy" of the labels, or minus the
                "score" (logit) of the label, so that a positive cosine is always an improvement.
            checkpoint: A folder to keep finished work in; a run that was stopped resumes from there.
            shard: Which part to do, (i, N) for every N-th image from the i-th on; :func:`merge` puts all N together.
            executor: Where to run all ``n_shards`` parts; anything with the interface of ``concurrent.futures``.
            n_shards: How many parts to cut the images into for the executor.
            show_progress: Show a progress bar.

        Returns:
            A Dataset over ``layer`` of averages over the images: ``branch_to_skip_ratio``, the norm of the branch's
            output over that of the skip's; ``input_output_cosine`` between the skip's output (the block's input, except
            for projections) and the block's output; ``update_gradient_cosine`` between the branch's output and the
            negative gradient of the loss at the sum that it is added into.

        Raises:
            TypeError: If the data is of the wrong kind.
            AdapterError: If a block is not what its adapter says, or the engine's outputs are not the model's.
            ValueError: If the labels do not fit the model.

        Example:
            >>> import resnet_lesion as rl, timm, torch
            >>> model = timm.create_model("resnet18", num_classes=10, zero_init_last=False)
            >>> inputs, targets = torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 3])
            >>> result = rl.BlockStatistics(model).analyze((inputs, targets), show_progress=False)
            >>> result.branch_to_skip_ratio.dims, bool((abs(result.input_output_cosine) <= 1 + 1e-9).all())
            (('layer',), True)
        """
        network = self.network
        network.require_skips()
        how: RunOptions = {"shard": shard, "checkpoint": checkpoint, "show_progress": show_progress}
        title, options = "Statistics of the residual blocks", {"objective": objective}
        run = Run(network, "block_statistics", title, options, **how)
        with run.pass_over(data) as pass_:
            sums = torch.zeros(3, len(network), dtype=torch.float64, device=network.device)
            for batch in microbatches(pass_, {"sums": sums}, GradientOptions(objective), len(network)):
                sums += _statistics(network, batch, -1 if objective == "score" else 1)
        names = {
            "branch_to_skip_ratio": "norm of the branch over norm of the skip",
            "input_output_cosine": "cosine of the block's input and output",
            "update_gradient_cosine": "cosine of the block's update and the negative gradient",
        }
        means = (sums / pass_.seen.total).cpu().numpy()
        dataset = xr.Dataset(
            {
                name: variable(("layer",), values, long_name, over_images="mean")
                for (name, long_name), values in zip(names.items(), means, strict=True)
            },
            coords=layer_coords(network),
        )
        return run.finish(dataset, pass_.seen)


def _statistics(network: ResidualNetwork, batch: Microbatch, sign: int) -> Tensor:
    """Return the sums over the images, (3, n_blocks)."""
    refuse_inference_tensors(network.model)
    ends: list[tuple[Tensor, Tensor]] = []  # inputs and outputs

    def at_block(_module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        ends.append((args[0].detach(), output))
        return output.clone()  # the next block may work on it in place

    with ExitStack() as stack, torch.enable_grad():
        take_residual = [stack.enter_context(block.kept_residual()) for block in network.blocks]
        for block in network.blocks:
            stack.enter_context(block.module.register_forward_hook(at_block))
        # so that there is a graph even where all weights are frozen
        leaf = batch.inputs.detach().clone().requires_grad_()
        logits = network.model(leaf.clone())  # which it may write into
    # a cosine does not change with the scale of a gradient
    head, _ = in_range(sign * at_output(logits, batch.objective)[None], logits.dtype)
    gradients = torch.autograd.grad(logits, [y for _, y in ends], head[0])
    rows = []
    with torch.no_grad():
        for block, take, (x, y), gradient in zip(network.blocks, take_residual, ends, gradients, strict=True):
            skip, scaled = block.shortcut(x), block.scale(take().clone())
            norms = [torch.linalg.vector_norm(t.flatten(1), dim=1, dtype=torch.float64) for t in (scaled, skip)]
            at_sum = _before_post(block, skip + scaled, gradient)
            values = torch.stack([norms[0] / norms[1], _cosine(skip, y), _cosine(scaled, -at_sum)])
            rows.append(values.where(batch.counts, 0.0).sum(1))
    return torch.stack(rows, dim=1)


def _before_post(block: Block, total: Tensor, gradient: Tensor) -> Tensor:
    """Carry the gradient at a block's output back to the sum of skip and branch."""
    if block.branch.post is None:
        return gradient
    with torch.enable_grad():
        leaf = total.detach().requires_grad_()
        (at_sum,) = torch.autograd.grad(block.post(leaf.clone()), leaf, gradient)
    return at_sum


def _cosine(a: Tensor, b: Tensor) -> Tensor:
    return torch.cosine_similarity(a.flatten(1).double(), b.flatten(1).double(), dim=1, eps=1e-300)
