"""Networks by name: with trained weights or with new ones, and where their weights are kept."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from resnet_lesion.checks import did_you_mean
from resnet_lesion.loading.images import refuse_scaled_digits
from resnet_lesion.loading.loaders import input_channels
from resnet_lesion.loading.weights import fit_weights, read_weights
from resnet_lesion.network.isolation import preserved_randomness


def model_by_name(
    name: str,
    *,
    checkpoint: Path | None = None,
    pretrained: bool = True,
    num_classes: int | None = None,
    image_size: int | None = None,
    ema: bool = False,
    seed: int = 0,
    say: Callable[[str], None] = warnings.warn,
) -> nn.Module:
    """Build a network with timm's pretrained weights, with those of a file, or with random ones.

    Args:
        name: A name that ``timm.create_model`` takes.
        checkpoint: A file to take the weights from: safetensors, or what a training script saved by ``torch.save``. If
            they are of a network for grey images, so is the model.
        pretrained: Whether to take timm's pretrained weights where there is no checkpoint; otherwise they are random.
        num_classes: Number of outputs; None for the model's own.
        image_size: Height and width, in pixels, that images are scaled to; None for what the model expects.
        ema: Whether to take the moving average of the weights from a checkpoint, rather than the weights.
        seed: Seed of random weights.
        say: What is told which of the two were taken, if a checkpoint has both.

    Returns:
        The model, on the CPU.

    Raises:
        FileNotFoundError: If there is no such checkpoint.
        ValueError: If timm has no such model, the weights cannot be loaded or do not fit, or the options contradict
            each other.
    """
    import timm

    if checkpoint is not None and not pretrained:
        raise ValueError("expected checkpoint= or pretrained=False, got both.")
    if ema and checkpoint is None:
        raise ValueError("ema=True takes the moving average from a file of weights: pass checkpoint= with it.")
    if checkpoint is not None and not checkpoint.is_file():
        raise FileNotFoundError(f"there is no file {str(checkpoint)!r} for checkpoint=.")
    pretrained = pretrained and checkpoint is None
    if num_classes is not None and pretrained:
        raise ValueError("num_classes= replaces the trained classifier with a random one: pass checkpoint= with it.")
    architecture, _, tag = name.partition(".")
    if ":" not in name and not timm.is_model(architecture):
        if "/" in name:
            raise ValueError(f"expected a name of timm's models, got {name!r}. A folder is given as local-dir:{name}.")
        known = did_you_mean(architecture, timm.list_models()) or " timm.list_models('*resnet*') lists those it has."
        raise ValueError(f"timm has no model {architecture!r}.{known}")
    size = {} if image_size is None else {"input_size": (3, image_size, image_size)}

    def create(**options: Any) -> nn.Module:
        with preserved_randomness():
            torch.manual_seed(seed)
            model: nn.Module = timm.create_model(
                name, pretrained=pretrained, num_classes=num_classes, pretrained_cfg_overlay=size, **options
            )
        return model

    try:
        model = create()
    except RuntimeError as error:
        tags = [full.partition(".")[2] for full in timm.list_pretrained(f"{architecture}.*")]
        fix = f"Known tags: {', '.join(tags)}. " if tag and tags else ""
        raise ValueError(
            f"{str(error).rstrip('.')}. {fix}Use checkpoint= or pretrained=False for other weights."
        ) from error
    except OSError as error:
        if not pretrained or name.startswith("local-dir:"):
            raise
        raise ValueError(
            f"the pretrained weights of {name} could not be loaded: {error} "
            "Use checkpoint= for local weights, or pretrained=False for random ones."
        ) from error
    if pretrained:
        # a folder has the tag of the architecture's default, whatever its weights are
        is_timms = ":" not in name or name.partition(":")[2].startswith("timm/")
        return model if is_timms else with_own_weights(model)
    if checkpoint is not None and checkpoint.suffix.lower() in _OF_JAX:
        _load_from_jax(model, checkpoint)
    elif checkpoint is not None:
        weights = read_weights(checkpoint, model.state_dict(), ema=ema, say=say)
        channels = _channels_of(model, weights)
        if channels != input_channels(model):
            model = create(in_chans=channels)
        fit_weights(model, weights, checkpoint)
    return with_own_weights(model)


_OF_JAX = (".npy", ".npz")


def _load_from_jax(model: nn.Module, checkpoint: Path) -> None:
    """Load what JAX saved into one of the models that can read it, which timm knows."""
    from timm.models import load_checkpoint

    try:
        load_checkpoint(model, str(checkpoint))
    except Exception as error:  # whatever an unreadable or ill-fitting file makes numpy and timm raise
        raise ValueError(
            f"expected weights of this model from JAX, got {str(checkpoint)!r}: {error} ({type(error).__name__})."
        ) from error


def _channels_of(model: nn.Module, weights: Mapping[str, Tensor]) -> int:
    """Return how many channels the images have that weights are for; the model's if they do not say."""
    own = input_channels(model)
    first = getattr(model, "pretrained_cfg", {}).get("first_conv")
    kernel = weights.get(f"{first}.weight")
    fits = kernel is not None and kernel.ndim == 4 and model.state_dict()[f"{first}.weight"].shape[1] == own
    return kernel.shape[1] if fits and kernel is not None else own


_FILE = "model.safetensors"  # timm's name for it


_UNTRAINED = "untrained"  # the tag of the paper's networks as they are for CIFAR


def untrained(
    name: str,
    dataset: Any,
    num_classes: int,
    *,
    seed: int = 0,
    stochastic_depth: float | None = None,
    image_size: int | None = None,
) -> nn.Module:
    """Build a network with random weights for a data set.

    Args:
        name: A name that ``timm.create_model`` takes.
        dataset: What it will be trained on: for the digits it takes their size, for images its own.
        num_classes: Number of outputs.
        seed: Seed of the weights.
        stochastic_depth: The probability that the last block's branch survives; it falls linearly from 1 at the first.
            This is timm's drop path: a branch survives or not for each image on its own, and is divided by its
            probability in training, so that nothing is rescaled afterwards.
        image_size: Height and width, in pixels, that images are scaled to; None for what the model expects.

    Returns:
        The model, on the CPU.

    Raises:
        ValueError: If there is no such model, it has no stochastic depth, the probability is out of bounds, or the
            images are digits, whose size is fixed.

    References:
        Huang et al. 2016, "Deep Networks with Stochastic Depth" (arXiv:1603.09382).
    """
    import timm

    if not timm.is_model(name):
        raise ValueError(f"timm has no model {name!r}.{did_you_mean(name.partition('.')[0], timm.list_models())}")
    if f"{name}.{_UNTRAINED}" in timm.list_models(f"{name}.*", include_tags=True):
        name = f"{name}.{_UNTRAINED}"
    refuse_scaled_digits(dataset, image_size)
    options: dict[str, Any] = {}
    if stochastic_depth is not None:
        if not 0 < stochastic_depth <= 1:
            raise ValueError(f"expected a probability of survival above 0 and up to 1, got {stochastic_depth}.")
        options["drop_path_rate"] = 1 - stochastic_depth
    if isinstance(dataset, TensorDataset):
        shape = tuple(dataset.tensors[0].shape[1:])
        options["pretrained_cfg_overlay"] = {"input_size": shape, "mean": (0.5,) * 3, "std": (0.5,) * 3}
    elif image_size is not None:
        options["pretrained_cfg_overlay"] = {"input_size": (3, image_size, image_size)}
    with preserved_randomness():
        torch.manual_seed(seed)
        try:
            model: nn.Module = timm.create_model(name, num_classes=num_classes, **options)
        except TypeError as error:
            if stochastic_depth is None or "drop_path_rate" not in str(error):
                raise
            raise ValueError(f"{name} has no stochastic depth: {error}.") from error
    return with_own_weights(model)


def with_own_weights(model: nn.Module) -> nn.Module:
    """Remove the tag of timm's pretrained weights from a timm model, so that no result claims to be of those."""
    config: Any = model.pretrained_cfg
    config["tag"] = ""
    return model


def load_weights(model: nn.Module, folder: Path) -> None:
    """Load what :func:`save_weights` wrote into a model of the same kind."""
    from safetensors.torch import load_model

    load_model(model, folder / _FILE)


def save_weights(model: nn.Module, folder: Path) -> None:
    """Write ``model.safetensors`` and ``config.json`` as timm does, to be loaded as ``local-dir:FOLDER``."""
    from safetensors.torch import save_file
    from timm.models._hub import save_config_for_hf  # timm's save_for_hf wants a package for downloads

    # a safetensors file holds tensors in one memory format only; the model itself keeps its own
    plain = copy.deepcopy(model).to(memory_format=torch.contiguous_format)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(plain.state_dict(), folder / _FILE)
    save_config_for_hf(plain, str(folder / "config.json"), model_config={"num_classes": model.num_classes})
