"""A faster copy of a network: the same function up to rounding, and how closely it agrees."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from resnet_lesion.acceleration import folding
from resnet_lesion.acceleration.compilation import CompiledBlocks
from resnet_lesion.blocks.block import Forward
from resnet_lesion.engines.plan import Plan
from resnet_lesion.engines.streams import forward_lesions
from resnet_lesion.errors import AdapterError
from resnet_lesion.network.orders import whole
from resnet_lesion.network.precision import Autocast, precision, relative_deviation, rounding_unit
from resnet_lesion.network.refusals import require_finite
from resnet_lesion.network.residual_network import ResidualNetwork, wrap
from resnet_lesion.network.weights import computes_by_itself
from resnet_lesion.results.provenance import weights_hash

# Two computations of equal quality are each about one rounding error away from the exact result. The largest error of a
# few outputs is a noisy measure of it, hence the factor; it may be zero by chance, hence the units in the last place.
_ROUNDINGS, _ULPS = 8, 4


@dataclass(frozen=True)
class Acceleration:
    """How a network was accelerated, and how closely it agrees with its model; written into every result.

    Attributes:
        n_folded: Number of batch norms folded into convolutions.
        channels_last: Whether channels are the innermost dimension in memory.
        autocast: The precision of convolutions and matrix products, or "None" for the model's own.
        compile: Whether blocks are compiled.
        n_images: On how many images the agreement was measured.
        equal_predictions: The fraction of them with the same largest output.
        deviation: The largest difference between two outputs, relative to the largest output.
        rounding: The same between the model in this precision and the model in float64: what rounding does to this
            network.

    Example:
        >>> import resnet_lesion as rl, timm, torch
        >>> model = timm.create_model("resnet18", num_classes=10, zero_init_last=False)
        >>> found = rl.accelerate(model, torch.randn(2, 3, 32, 32), channels_last=False).acceleration
        >>> found.n_folded, found.channels_last, found.autocast, found.n_images, found.equal_predictions
        (20, False, 'None', 2, 1.0)
    """

    n_folded: int
    channels_last: bool
    autocast: str
    compile: bool
    n_images: int
    equal_predictions: float
    deviation: float
    rounding: float


class AcceleratedNetwork(ResidualNetwork):
    """A network that runs compiled, or in another memory format or precision; made by :func:`accelerate`."""

    acceleration: Acceleration

    def __init__(self, model: nn.Module, *, channels_last: bool, autocast: Autocast, compile: bool) -> None:
        super().__init__(model)
        self._channels_last = channels_last
        self._autocast: Autocast = autocast
        self._compiled = CompiledBlocks(self.model) if compile else None

    def __reduce__(self) -> tuple[object, ...]:
        # neither an adapter's functions nor compiled code can be sent to another process
        options = {
            "channels_last": self._channels_last,
            "autocast": self._autocast,
            "compile": self._compiled is not None,
        }
        return _again, (self.model, options, self.acceleration, self.attrs)

    def to_device(self, inputs: Tensor) -> Tensor:
        """Move inputs to the model's device, dtype and memory format."""
        inputs = super().to_device(inputs)
        if self._channels_last and inputs.ndim == 4:
            return inputs.contiguous(memory_format=torch.channels_last)
        return inputs

    def forwards(self) -> list[Forward]:
        """Return each block's own forward, compiled if requested."""
        forwards = super().forwards()
        return forwards if self._compiled is None else self._compiled.forwards(self.blocks, forwards)

    @contextmanager
    def precision(self) -> Iterator[None]:
        """Compute in the precision that was asked for."""
        with precision(self.device, self._autocast):
            yield


@torch.inference_mode(False)  # in which the copy would get weights that no gradients can be computed with
def accelerate(
    model: nn.Module | ResidualNetwork,
    inputs: Tensor,
    *,
    fold_norms: bool = True,
    channels_last: bool = True,
    autocast: Autocast = None,
    compile: bool = False,
) -> AcceleratedNetwork:
    """Copy a network into a faster one that computes the same up to rounding.

    The copy can be used wherever the model can: in analyzers, :func:`evaluate`, :func:`study`. The model itself is left
    alone. What is measured here, on ``inputs``, is kept as ``network.acceleration`` and written into every result.

    Args:
        model: A model with known residual blocks, on the device where it will run.
        inputs: Some of its inputs, (N, ...), on which the two are compared: a dozen real images.
        fold_norms: Fold batch norms into the convolution right before them, where a forward pass on the first input
            shows that nothing else reads the tensor between them, no lesion can separate them, and float64 shows that
            both compute the same. A norm after an addition, as at the entry of a pre-activation block, has no
            convolution to be folded into, and stays.
        channels_last: Lay out tensors of images with the channels innermost, which most convolutions prefer. Path
            gradients, which are stacked the other way, are faster without it.
        autocast: torch.bfloat16 or torch.float16 for ``torch.autocast``, "tf32" for CUDA's TensorFloat-32, None for
            the model's own precision. Whatever is run on the network, ``lesioned`` and ``routed`` too, runs in it.
        compile: Run blocks through ``torch.compile``, once for each of their classes and widths, which takes seconds
            for each, here and when the first lesions run. Path gradients and blocks with hooks inside run uncompiled.

    Returns:
        The accelerated copy, in eval mode, with the same layers.

    Raises:
        TypeError: If the model has no known block, or is already accelerated.
        ValueError: If the inputs are not finite, the model cannot run in this precision, or the copy deviates by more
            than rounding explains.
        AdapterError: If the copy has other blocks than the model.

    Example:
        >>> import resnet_lesion as rl, timm, torch
        >>> model = timm.create_model("resnet18", num_classes=10, zero_init_last=False)
        >>> network = rl.accelerate(model, torch.randn(2, 3, 32, 32))
        >>> network.acceleration.n_folded, network.acceleration.deviation < 1e-5
        (20, True)
        >>> data = torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 3])
        >>> result = rl.Deletion(network).analyze(data, show_progress=False)
        >>> result.layer.values[:2].tolist()
        ['layer1.0', 'layer1.1']
    """
    original = wrap(model)
    if isinstance(original, AcceleratedNetwork):
        raise TypeError("expected a model, got a network that is already accelerated. Pass the model it was made from.")
    _check_precision(original, autocast)
    require_finite(inputs)
    expected = original.trace(inputs).output
    _check_weights(original.model)
    twin, folded = _copied(original.model).eval(), dict[str, str]()
    if fold_norms:
        with original.isolated(), torch.autocast(original.device.type, enabled=False):
            folded = folding.fold_norms(ResidualNetwork(twin), original.to_device(inputs[:1]))
    if channels_last:
        twin = twin.to(memory_format=torch.channels_last)
    network = AcceleratedNetwork(twin, channels_last=channels_last, autocast=autocast, compile=compile)
    if network.layers != original.layers:
        raise AdapterError(f"expected the blocks {original.layers} in the accelerated copy, got {network.layers}.")
    with network.isolated(), torch.no_grad():
        found = forward_lesions(network, Plan(whole(len(network))[None]), network.to_device(inputs))[0]
    network.acceleration = Acceleration(
        n_folded=len(folded),
        channels_last=channels_last,
        autocast=str(autocast).removeprefix("torch."),
        compile=compile,
        n_images=len(inputs),
        equal_predictions=float((_predictions(found) == _predictions(expected)).double().mean()),
        deviation=relative_deviation(found.double(), expected.double()),
        rounding=_rounding(original, inputs, autocast),
    )
    network.attrs = {
        "weights_sha256": weights_hash(original.model),
        "autocast": network.acceleration.autocast,
        "acceleration": json.dumps(asdict(network.acceleration)),
    }
    limit = _ROUNDINGS * network.acceleration.rounding + _ULPS * rounding_unit(autocast, original.dtype)
    if not network.acceleration.deviation <= limit:  # `not <=` so that NaN fails too
        raise ValueError(
            "expected an accelerated copy whose outputs deviate from the model's only by rounding, at most "
            f"{limit:.3g} of the largest, got {network.acceleration.deviation:.3g}. Leave an option out: "
            "compile=False, autocast=None, channels_last=False, fold_norms=False."
        )
    return network


def _again(model: nn.Module, options: dict[str, Any], acceleration: Acceleration, attrs: dict[str, str]) -> object:
    network = AcceleratedNetwork(model, **options)
    network.acceleration, network.attrs = acceleration, attrs
    return network


def _check_precision(network: ResidualNetwork, autocast: Autocast) -> None:
    if autocast is None:
        return
    if autocast not in (torch.bfloat16, torch.float16, "tf32"):
        raise ValueError(f'expected autocast as torch.bfloat16, torch.float16, "tf32" or None, got {autocast!r}.')
    if network.dtype != torch.float32:
        raise ValueError(
            f"expected a float32 model, whose precision autocast can lower, got {network.dtype}. Use autocast=None."
        )
    if autocast == "tf32" and network.device.type != "cuda":
        raise ValueError(
            f'expected a model on a CUDA device for autocast="tf32", got one on {network.device}. Move it there first, '
            "or use torch.bfloat16."
        )


def _check_weights(model: nn.Module) -> None:
    for name, weight in model.named_parameters():
        if computes_by_itself(weight) or not weight.is_floating_point():
            kind = type(weight).__name__ if computes_by_itself(weight) else str(weight.dtype)
            raise TypeError(
                f"expected plain floating-point weights, of which a float64 copy tells what rounding does, got {kind} "
                f"({name!r}). Analyse the model itself, or accelerate it before its weights are replaced."
            )


def _copied(model: nn.Module) -> nn.Module:
    """Copy a model, also where hooks compute a weight anew in each pass, which torch would not copy.

    That is how ``torch.nn.utils.weight_norm``, ``spectral_norm`` and ``prune`` work.
    """
    computed = (value for module in model.modules() for value in vars(module).values() if isinstance(value, Tensor))
    return copy.deepcopy(model, {id(value): value.detach().clone() for value in computed if not value.is_leaf})


def _rounding(network: ResidualNetwork, inputs: Tensor, autocast: Autocast) -> float:
    """Return how far rounding alone moves the model's outputs: from those of a float64 copy."""
    if network.dtype == torch.float64:  # there is no finer type: as far as float32 moves them, in float64's units
        coarse = ResidualNetwork(_copied(network.model).float()).trace(inputs).output
        fine = network.trace(inputs).output
        unit = rounding_unit(None, torch.float64) / rounding_unit(None, torch.float32)
    else:
        with precision(network.device, autocast):
            coarse = network.trace(inputs).output
        fine, unit = ResidualNetwork(_copied(network.model).double()).trace(inputs).output, 1.0
    return relative_deviation(coarse.double(), fine.double()) * unit


def _predictions(outputs: Tensor) -> Tensor:
    return outputs.flatten(1).argmax(1)
