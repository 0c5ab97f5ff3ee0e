"""The analyzers' Captum side: an image's score, how much of it a lesion costs, and its gradients by path length."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial, wraps
from typing import Any, TypeAlias, TypeVar

import torch
from captum._utils.common import _select_targets
from captum.attr._utils.attribution import Attribution
from captum.log import log_usage  # pyright: ignore[reportAttributeAccessIssue]
from torch import Tensor, nn
from tqdm import tqdm

from resnet_lesion.engines.chunking import Chunks
from resnet_lesion.engines.linearization import Linearization, prove_gradients
from resnet_lesion.engines.memory import gradient_capacity
from resnet_lesion.engines.proof import N_IMAGES, prove
from resnet_lesion.network.forward_pass import rows_of, slice_batch
from resnet_lesion.network.orders import IntArray, whole
from resnet_lesion.network.residual_network import ResidualNetwork, wrap
from resnet_lesion.network.shapes import check_fit
from resnet_lesion.runs.data import as_plain, in_range, not_finite

TargetType: TypeAlias = int | tuple[int, ...] | Tensor | list[int] | list[tuple[int, ...]] | None
"""Captum's target: a class for all images, one for each, or None if the model returns one score per image."""


_F = TypeVar("_F", bound=Callable[..., object])


class BlockAttribution(Attribution):  # type: ignore[misc]  # Captum ships no types
    """One of Captum's algorithms on a model whose residual blocks are known; Captum's own base comes after it.

    Args:
        model: A model with known residual blocks.

    Attributes:
        network: The network made from it.
    """

    def __init__(self, model: nn.Module | ResidualNetwork) -> None:
        """Take the model to analyse, as the class says."""  # or help() would show Captum's
        self.network = wrap(model)
        super().__init__(self.network.model)


def captum_algorithm(attribute: _F) -> _F:
    """Make an ``attribute`` method one of Captum's.

    It is marked as Captum marks its own; NoiseTunnel calls what is underneath the mark. Inputs as a tuple of one tensor
    give the attributions as such a tuple, which Captum's metrics rely on.
    """

    @wraps(attribute)
    def formatted(self: object, inputs: object, *args: object, **options: object) -> object:
        result = attribute(self, inputs, *args, **options)
        if not isinstance(inputs, tuple):
            return result
        return ((result[0],), *result[1:]) if isinstance(result, tuple) else (result,)

    marked: _F = log_usage()(formatted)
    return marked


def score_lost(
    network: ResidualNetwork,
    inputs: Tensor,
    target: TargetType,
    orders: IntArray,
    additional_forward_args: object,
    perturbations_per_eval: int | None,
    show_progress: bool,
) -> Tensor:
    """Return (N, n_orders): the target score of the whole network less that under each order row."""
    inputs = single_input(inputs, network.dtype)
    extra = forward_args(additional_forward_args)
    proof = prove(network, *slice_batch(slice(N_IMAGES), inputs, *extra))
    with (
        network.isolated(),
        torch.no_grad(),
        tqdm(total=len(orders) + 1, unit="lesion", disable=not show_progress, desc="lesions") as progress,
    ):
        check_fit(network, orders, proof.trace)
        rows = torch.cat([torch.as_tensor(whole(len(network)))[None], torch.as_tensor(orders)]).numpy()
        chunks = Chunks(network, rows, proof, perturbations_per_eval)
        scores: Tensor | None = None
        for outputs, chosen in chunks.outputs(network.to_device(inputs), *extra):
            selected = torch.stack([select_score(output, target) for output in outputs], dim=1)
            if scores is None:
                scores = selected.new_empty(len(inputs), len(rows))
            scores[:, chosen] = selected
            progress.update(len(chosen))
    assert scores is not None
    return scores[:, :1] - scores[:, 1:]


def single_input(inputs: object, dtype: torch.dtype) -> Tensor:
    """Unpack Captum's one-tensor tuple, and make a plain tensor of a subclass.

    Raises:
        TypeError: If the inputs are not one tensor.
        ValueError: If they hold no image, or a number is not finite in the model's dtype.
    """
    if isinstance(inputs, tuple) and len(inputs) == 1:
        (inputs,) = inputs
    if not isinstance(inputs, Tensor):
        raise TypeError(f"expected inputs as one tensor (N, ...), got {type(inputs).__name__}.")
    if inputs.ndim < 2 or not len(inputs):
        raise ValueError(f"expected inputs (N, ...) with N >= 1, got shape {tuple(inputs.shape)}.")
    if inputs.is_floating_point() and not in_range(inputs, dtype).all():
        raise ValueError(not_finite(dtype))
    return as_plain(inputs)


def forward_args(additional_forward_args: object) -> tuple[object, ...]:
    """Return Captum's additional arguments as a tuple."""
    if additional_forward_args is None:
        return ()
    return additional_forward_args if isinstance(additional_forward_args, tuple) else (additional_forward_args,)


def select_score(output: Tensor, target: TargetType) -> Tensor:
    """Select each image's score, (N,), from the model's output, as Captum does.

    Raises:
        ValueError: If the target does not select one score for each image.
    """
    if isinstance(target, Tensor):
        target = target.to(output.device, copy=True)  # one made in inference mode could not be saved for backward
    try:
        score: Tensor = _select_targets(output, target)
    except (AssertionError, IndexError, RuntimeError) as error:
        raise ValueError(
            f"expected a target that selects one of the outputs {tuple(output.shape)} for each image, "
            f"got {target!r:.80}: {error}."
        ) from error
    if score.numel() != len(output):
        raise ValueError(
            f"expected a target that selects one score for each image, got {target!r:.80} "
            f"with outputs of shape {tuple(output.shape)}. Pass target=labels or target=class_index."
        )
    return score.reshape(len(output))


def carry_by_length(
    network: ResidualNetwork,
    inputs: Tensor,
    target: TargetType,
    additional_forward_args: object,
    wrt: int | None,
    max_length: int,
    memory_limit: int | None,
    reduce: Callable[[Tensor], Tensor],
) -> Tensor:
    """Carry the target score's gradients by path length back to the input (or a block's) and reduce them.

    Args:
        network: The network.
        inputs: (N, ...) inputs.
        target: Captum's target.
        additional_forward_args: Further arguments of the model.
        wrt: The block at whose input the gradients are taken, or None for the model's input.
        max_length: The longest paths to carry.
        memory_limit: Roughly how many bytes to use at most.
        reduce: Maps (lengths, n, ...) gradients of some images to (n, ...).

    Returns:
        (N, ...) reduced gradients.
    """
    x, extra, parts = single_input(inputs, network.dtype), forward_args(additional_forward_args), list[Tensor]()
    proof = prove(network, *slice_batch(slice(N_IMAGES), x, *extra))
    with network.isolated():
        prove_gradients(network, proof, *slice_batch(slice(N_IMAGES), x, *extra))
        n_images = max(1, gradient_capacity(network, proof.trace, memory_limit) // (max_length + 1))
        for start in range(0, len(x), n_images):
            n = len(x[start : start + n_images])
            chosen = proof.at_least(n, start)
            some, *args = slice_batch(chosen, x, *extra)
            with proof.one_pass(network.model):
                linear = Linearization(
                    network,
                    network.to_device(some),
                    partial(select_score, target=_targets_of(target, chosen, len(x))),
                    tuple(args),
                    max_length + 1,
                )
                ((_, gradients),) = deque(linear.by_length(max_length, wrt or 0), maxlen=1)
                parts.append(reduce(linear.to_wrt(wrt, gradients) / linear.scale)[:n])
    return torch.cat(parts)


def wrt_block(network: ResidualNetwork, wrt: str | None) -> int | None:
    """Return the index of the block whose input is meant, or None for the model's input.

    Raises:
        TypeError: If it is not a name.
        ValueError: If there is no such block.
    """
    if wrt is not None and not isinstance(wrt, str):
        raise TypeError(f"expected wrt as the name of one block, or None for the model's input, got {wrt!r:.60}.")
    return None if wrt is None else network.index(wrt)[0]


def _targets_of(target: TargetType, chosen: slice | list[int], n: int) -> Any:
    """Return the targets of some of the n images; a list, too, has one for each."""
    if isinstance(target, list) and len(target) == n:
        return target[chosen] if isinstance(chosen, slice) else [target[i] for i in chosen]
    return rows_of(target, chosen, n)
