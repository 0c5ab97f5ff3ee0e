"""Networks to be trained, and where their weights go."""

from __future__ import annotations

import argparse
import copy
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import TensorDataset

from resnet_lesion.checks import did_you_mean
from resnet_lesion.loading.images import refuse_scaled_digits
from resnet_lesion.network.isolation import preserved_randomness


def model_of(args: argparse.Namespace) -> nn.Module:
    import timm

    if args.checkpoint is not None and args.no_pretrained:
        raise ValueError("expected --checkpoint or --no-pretrained, got both.")
    if args.checkpoint is not None and not args.checkpoint.is_file():
        raise FileNotFoundError(f"there is no file {str(args.checkpoint)!r} for --checkpoint.")
    if args.num_classes is not None and args.checkpoint is None and not args.no_pretrained:
        raise ValueError(
            "--num-classes replaces the trained classifier by a random one: pass --checkpoint FILE with it."
        )
    name, _, tag = args.model.partition(".")
    if ":" not in args.model and not timm.is_model(name):
        known = did_you_mean(name, timm.list_models()) or " timm.list_models('*resnet*') lists those there are."
        raise ValueError(f"timm has no model {name!r}.{known}")
    pretrained = args.checkpoint is None and not args.no_pretrained
    size = {} if args.image_size is None else {"input_size": (3, args.image_size, args.image_size)}
    try:
        model = timm.create_model(
            args.model, pretrained=pretrained, num_classes=args.num_classes, pretrained_cfg_overlay=size
        )
    except RuntimeError as error:
        tags = [full.partition(".")[2] for full in timm.list_pretrained(f"{name}.*")]
        fix = f"Known tags: {', '.join(tags)}. " if tag and tags else ""
        raise ValueError(
            f"{str(error).rstrip('.')}. {fix}Use --checkpoint FILE or --no-pretrained for other weights."
        ) from error
    except OSError as error:
        if not pretrained or args.model.startswith("local-dir:"):
            raise
        raise ValueError(
            f"the pretrained weights of {args.model} could not be loaded: {error} "
            "Use --checkpoint FILE for weights that are here, or --no-pretrained for random ones."
        ) from error
    if pretrained:
        return model
    if args.checkpoint is not None:
        _load(model, args.checkpoint)
    else:
        print("note: with random weights the results say nothing about a trained network", file=sys.stderr)
    return with_own_weights(model)


def _load(model: nn.Module, checkpoint: Path) -> None:
    from timm.models import load_checkpoint

    try:
        load_checkpoint(model, str(checkpoint), weights_only=True)
    except Exception as error:  # whatever an unreadable or ill-fitting file makes torch, safetensors and pickle raise
        cause = f"it does not hold plain weights, and nothing else is unpickled ({type(error).__name__})."
        if "state_dict" in str(error):
            cause = f"{' '.join(str(error).split()):.250}... Is it of another model, or another --num-classes?"
        raise ValueError(
            f"expected a state dict of this model, as safetensors or saved by torch.save, "
            f"got {str(checkpoint)!r}: {cause}"
        ) from error


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
        dataset: What it will be trained on: of the digits it takes the size, of images its own.
        num_classes: Number of outputs.
        seed: Seed of the weights.
        stochastic_depth: The probability that the last block's branch survives; it falls linearly from 1 at the first.
            This is timm's drop path: a branch survives or not for each image on its own, and is divided by its
            probability meanwhile, so that nothing is rescaled afterwards.
        image_size: Height and width, in pixels, that images are scaled to; None for what the model expects.

    Returns:
        The model, on the CPU.

    Raises:
        ValueError: If there is no such model, it has no stochastic depth, the probability is out of bounds, or the
            images are digits, which have their size.

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
    """Take the tag of timm's pretrained weights from a timm model, so that no result is said to be of those."""
    config: Any = model.pretrained_cfg
    config["tag"] = ""
    return model


def load_weights(model: nn.Module, folder: Path) -> None:
    """Load what :func:`save_weights` wrote into a model of the same kind."""
    from safetensors.torch import load_model

    load_model(model, folder / _FILE)


def save_weights(model: nn.Module, folder: Path) -> None:
    """Write ``model.safetensors`` and ``config.json`` as timm does, to be loaded as ``local-dir:FOLDER``."""
    from timm.models import save_for_hf

    # a safetensors file holds tensors in one memory format only; the model itself keeps its own
    plain = copy.deepcopy(model).to(memory_format=torch.contiguous_format)
    save_for_hf(plain, str(folder), model_config={"num_classes": model.num_classes}, safe_serialization=True)
