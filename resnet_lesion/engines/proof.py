"""What a run shows on its first images before anything is counted: that the engine computes what the model does.

An adapter describes a class; the model in front of us may have been patched, hooked or quantised, or may look at the
whole batch. So the model is called plainly, its blocks are compared with their adapters on the way, and its outputs
with those of one image alone, and of images whose rows the engine shuffles at every block.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from resnet_lesion.blocks.block import is_hooked, is_in_context, is_patched
from resnet_lesion.engines.plan import Plan, Shuffle
from resnet_lesion.engines.streams import forward_lesions
from resnet_lesion.errors import AdapterError, PathsError
from resnet_lesion.network.forward_pass import as_output, rows_of, run_model
from resnet_lesion.network.isolation import isolated, preserved_buffers
from resnet_lesion.network.orders import whole
from resnet_lesion.network.precision import network_tolerance, relative_deviation
from resnet_lesion.network.refusals import refuse_non_finite, require_whole_weights
from resnet_lesion.network.residual_network import ResidualNetwork, Trace
from resnet_lesion.network.verification import verified_pass
from resnet_lesion.warning import warn

N_IMAGES = 8
"""The largest number of images that a proof looks at."""


# Numbers that stand for the outputs in a run's identity.
_PROJECTIONS = 8


@dataclass(frozen=True)
class Proof:
    """What the first images showed of a network.

    Attributes:
        trace: The shapes of the blocks' inputs and outputs, and the outputs for the images.
        blocks: The largest deviation of a block, or a chain, from what its adapter says.
        alone: The deviation of the outputs for an image alone from those in a batch.
        engine: The deviation of the outputs that the engine gives from those of the model called plainly.
        independent: Whether an image's outputs are the same in any batch.
        stackable: Whether several lesions may share a forward pass.
        reason: Why they may not.
        n_at_least: How many images the model must be given at least.
        changing: Whether a forward pass changes the model's buffers.
        surrounded: Whether a ``lesioned`` or ``routed`` context was open on the model.
        behaviour: What the model does, in a form that is compared with another run's up to rounding.

    All deviations are relative to the largest entry.
    """

    trace: Trace
    blocks: float
    alone: float
    engine: float
    independent: bool
    stackable: bool
    reason: str
    n_at_least: int
    changing: bool
    surrounded: bool
    behaviour: Mapping[str, object] = field(repr=False)

    def to_json(self) -> str:
        """Write what a result says of it; what could not be tried is null, as JSON has no NaN."""
        kept = ("blocks", "alone", "engine", "independent", "stackable")
        values = {name: getattr(self, name) for name in kept}
        return json.dumps({name: None if value != value else value for name, value in values.items()})

    def require_gradients(self) -> None:
        """Refuse a model whose images look at each other, so that none has a gradient of its own, or a lesioned one.

        Raises:
            PathsError: If they do, or a context was open.
        """
        if self.surrounded:
            raise PathsError(
                "expected a model as it is, as each block's branch and shortcut are taken apart, but a context "
                "(lesioned, routed) is open on it. End it first; Deletion, Reorder and evaluate work inside lesioned."
            )
        if not self.independent:
            raise PathsError(
                f"expected a model whose outputs for an image do not depend on its batch, but {self.reason}: "
                "gradients of single images, and of paths, are not defined. Use running statistics in its norms; "
                "Deletion, Reorder and evaluate work on this model, batch by batch."
            )

    def at_least(self, n: int, start: int = 0) -> slice | list[int]:
        """Number n images from one on, and the first of them again if the model does not take as few as these."""
        if n >= self.n_at_least:
            return slice(start, start + n)
        return [*range(start, start + n), *[start] * (self.n_at_least - n)]

    @contextmanager
    def one_pass(self, model: nn.Module) -> Iterator[None]:
        """Let the model begin a forward pass as it began its first one, whatever earlier passes left in its buffers."""
        with preserved_buffers(model) if self.changing else nullcontext():
            yield


def prove(network: ResidualNetwork, inputs: Tensor, *args: object) -> Proof:
    """Try a network on a few images, with at most three forward passes over them, before it is analysed.

    Args:
        network: The network, with its chains closed.
        inputs: (N, ...) the first images of the data, or as many as there are; :data:`N_IMAGES` are enough.
        *args: Further arguments of the model; tensors with N rows have one for each image.

    Returns:
        What it showed. Where lesions must not share a forward pass, or results depend on the batches, a warning says
        so.

    Raises:
        AdapterError: If a block deviates from its adapter, or the engine's outputs from the model's.
        ValueError: If the outputs are not finite.
    """
    require_whole_weights(network.model)
    surrounded = any(map(is_in_context, network.model.modules()))
    with isolated(network.model), torch.no_grad():
        network.look_up()
        trial = _Trial(network, inputs, args, surrounded)
        proof = trial.proof()
    _warn(proof, trial.passed.idle, len(network))
    return proof


class _Trial:
    """A network and the images that it is tried on, in eval mode and without gradients."""

    def __init__(self, network: ResidualNetwork, inputs: Tensor, args: tuple[object, ...], surrounded: bool) -> None:
        self.network, self._plan, self._surrounded = network, Shuffle(len(network)), surrounded
        self._n_real = len(inputs)  # more than that are made from them
        self._images, self._args = _some(network.to_device(inputs), args, self._plan.n_images + 2)
        with preserved_buffers(network.model) as changed, network.precision():
            self.passed = verified_pass(network.model, network.blocks, network.chains, self._images, *self._args)
        self._own = as_output(self.passed.output, len(self._images))
        self._changing = bool(changed)
        self._tolerance = network_tolerance(network.device, network.dtype)

    def proof(self) -> Proof:
        refuse_non_finite(self.network.model, self._own[: self._n_real])
        last = [len(self._images) - 1]  # not the first, which is in the same place alone and in the batch
        n_at_least, alone, reason = self._alone(last)
        independent, engine = not reason, _NOT_TRIED
        if independent:
            engine, reason = self._shuffled()
        if reason:
            engine = self._through_engine()
            # what went wrong with the rows of some images may go wrong with any other
            independent = (
                independent and not self._changing and not any(self._alone([i])[2] for i in range(len(self._images)))
            )
        return Proof(
            trace=Trace(tuple(self.passed.input_shapes), tuple(self.passed.output_shapes), self._own),
            blocks=max(self.passed.deviations, default=0.0),
            alone=alone,
            engine=engine,
            independent=independent,
            stackable=not reason,
            reason=reason,
            n_at_least=n_at_least,
            changing=self._changing,
            surrounded=self._surrounded,
            behaviour=_behaviour(self.network, self._own[:1], self._tolerance),
        )

    def _alone(self, image: list[int]) -> tuple[int, float, str]:
        """Run one of the images alone, or twice if the model does not take a batch of one.

        Returns:
            How many the model takes at least, how far its outputs are from those in the batch, and why the images are
            not independent, or nothing.
        """
        refused = ""
        for chosen in (image, 2 * image):  # a head may squeeze a batch of one
            try:
                output = as_output(self._plainly(chosen), len(chosen))
            except torch.OutOfMemoryError:  # which says nothing of the model
                raise
            except (AdapterError, RuntimeError, ValueError, IndexError, TypeError) as error:
                refused = refused or f"the model does not take one of its inputs alone: {error}"
                continue
            deviation = relative_deviation(output, self._own[chosen])
            differs = (
                f"the outputs for an image differ by {deviation:.2g}, relative to the largest, alone and in a batch"
            )
            return len(chosen), deviation, "" if deviation <= self._tolerance else differs
        return 1, _NOT_TRIED, refused

    def _shuffled(self) -> tuple[float, str]:
        """Run the engine on rows that it shuffles; return how far off it is, and why lesions must not share a pass."""
        n = self._plan.n_images
        try:
            outputs = self._engine(self._plan, list(range(n)))[:, 0]
        except torch.OutOfMemoryError:
            raise
        except (AdapterError, RuntimeError, ValueError, IndexError) as error:
            return _NOT_TRIED, f"the model does not run on {n + 1} rows for {n} images: {error}"
        deviation = relative_deviation(outputs, self._own[torch.as_tensor(self._plan.images, device=outputs.device)])
        if deviation <= self._tolerance:
            return deviation, ""
        return (
            deviation,
            f"the outputs differ by {deviation:.2g}, relative to the largest, when rows move between blocks",
        )

    def _through_engine(self) -> float:
        """Run the whole network on the whole batch through the engine.

        Raises:
            AdapterError: If its outputs are not the model's.
        """
        everything = list(range(len(self._images)))
        outputs = self._engine(Plan(whole(len(self.network))[None]), everything)[0]
        deviation = relative_deviation(outputs, self._own)
        if not deviation <= self._tolerance:
            again = relative_deviation(as_output(self._plainly(everything), len(everything)), self._own)
            raise AdapterError(
                "expected a model that gives the same images the same outputs, got outputs that differ by "
                f"{again:.2g}: it draws random numbers in eval mode, or keeps something from one call to the next "
                "outside its buffers. Switch that off."
                if not again <= self._tolerance
                else "expected the model's own outputs from its blocks run one after another, got outputs that differ "
                f"by {deviation:.2g}, relative to the largest: something in the model reaches around its blocks."
            )
        return deviation

    def _plainly(self, chosen: list[int]) -> object:
        model = self.network.model
        with preserved_buffers(model), self.network.precision():
            return run_model(model, self._images[chosen], *self._args_of(chosen))

    def _engine(self, plan: Plan, chosen: list[int]) -> Tensor:
        with self.network.isolated():
            return forward_lesions(self.network, plan, self._images[chosen], *self._args_of(chosen))

    def _args_of(self, chosen: list[int]) -> tuple[Any, ...]:
        return tuple(rows_of(arg, chosen, len(self._images)) for arg in self._args)


_NOT_TRIED = float("nan")


def _some(inputs: Tensor, args: tuple[object, ...], n: int) -> tuple[Tensor, tuple[Any, ...]]:
    """Return n different images with their arguments: the first ones, then the first one with its pixels shuffled."""
    chosen = [i if i < len(inputs) else 0 for i in range(n)]
    images, generator = inputs[chosen], torch.Generator().manual_seed(0)
    for i in range(len(inputs), n):
        pixels = torch.randperm(images[i].numel(), generator=generator).to(images.device)
        images[i] = images[i].flatten()[pixels].reshape(images[i].shape)
    return images, tuple(rows_of(arg, chosen, len(inputs)) for arg in args)


def _behaviour(network: ResidualNetwork, output: Tensor, tolerance: float) -> dict[str, object]:
    """Say what a network does by its outputs (1, ...) for one image and by which modules do more than their class."""
    values = output.detach().flatten().double().cpu().numpy()
    rng = np.random.default_rng(0)
    signs = (rng.integers(2, size=values.size) * 2.0 - 1.0 for _ in range(_PROJECTIONS))
    return {
        # not a digest, which would differ where rounding does
        "outputs": [float(f"{sign @ values / np.sqrt(values.size):.6g}") for sign in signs],
        "rounding": tolerance,
        "hooks": [name for name, module in network.model.named_modules() if is_hooked(module) or is_patched(module)],
    }


def _warn(proof: Proof, idle: list[str], n_blocks: int) -> None:
    if idle:
        warn(
            f"the branches of {len(idle)} of {n_blocks} blocks return zero on the first images ({idle[0]!r} is one), "
            "as in a network that is not trained: deleting them changes nothing."
        )
    if not proof.independent:
        warn(
            f"results depend on the batches, and lesions are run one by one: {proof.reason}. Norms with running "
            "statistics, for instance, do not look at the batch."
        )
    elif not proof.stackable:
        warn(f"lesions are run one by one, which takes longer: {proof.reason}.")
