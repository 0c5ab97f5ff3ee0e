"""Which models are covered, and why the others are not; found out without weights, on the meta device."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from resnet_lesion.blocks.block import Forward, replaced_forwards
from resnet_lesion.blocks.registry import find_branch, is_block
from resnet_lesion.checks import did_you_mean
from resnet_lesion.engines.linearization import Linearization
from resnet_lesion.errors import AdapterError
from resnet_lesion.network.residual_network import ResidualNetwork, Trace, wrap
from resnet_lesion.runs.processes import in_processes

_PER_PROCESS = 16  # starting a process takes seconds, as long as that many models take


_BATCH = 2


@dataclass(frozen=True)
class Support:
    """What can be asked of one model.

    Attributes:
        name: The model's name, or its class.
        module: The Python module of the model's class: for timm's models, one file of timm.
        covered: Whether its blocks can be deleted, reordered and evaluated.
        path_gradients: Whether path gradients can be computed too: all paths run through the blocks in a row.
        n_blocks: Number of residual blocks (of a plain network: layers that keep the shape).
        block_classes: The classes of its blocks.
        reason: Why it is not covered, or has no path gradients; empty if neither.

    Example:
        >>> import resnet_lesion as rl
        >>> answer = rl.supported("hrnet_w18_small")
        >>> answer.covered, answer.path_gradients
        (False, False)
    """

    name: str
    module: str
    covered: bool
    path_gradients: bool
    n_blocks: int
    block_classes: tuple[str, ...]
    reason: str


def supported(model: nn.Module | ResidualNetwork | str, input_size: Sequence[int] | None = None) -> Support:
    """Tell whether a model is covered, and if not, why.

    A copy without weights runs once on torch's meta device: nothing is downloaded, and the model itself is not run. It
    shows that each block runs once, in order. Whether a block computes what its adapter says is checked by
    :meth:`ResidualNetwork.verify` and :func:`resnet_lesion.testing.check_adapter`, which need values.

    Args:
        model: A model, or a name that ``timm.create_model`` takes.
        input_size: (channels, height, width) of its inputs; default what its ``pretrained_cfg`` says, or
            (3, 224, 224).

    Returns:
        The answer.

    Raises:
        TypeError: If it is neither a model nor a name.
        ValueError: If there is no timm model of this name.

    Example:
        >>> import resnet_lesion as rl
        >>> answer = rl.supported("resnet50")
        >>> answer.covered, answer.n_blocks, answer.block_classes
        (True, 16, ('Bottleneck',))
        >>> rl.supported("densenet121").covered
        False
    """
    name = model if isinstance(model, str) else ""
    with torch.random.fork_rng(devices=[]):
        twin = _built(model) if isinstance(model, str) else _twin(model)
    module, name = type(twin).__module__, name or type(twin).__name__
    size = input_size or (getattr(twin, "pretrained_cfg", None) or {}).get("input_size") or (3, 224, 224)
    try:
        network = wrap(twin)
        with torch.device("meta"):
            trace = network.trace(torch.empty(_BATCH, *size))
    except Exception as error:  # a model's own errors too
        return Support(name, module, False, False, 0, (), _short(error))
    classes = {type(m).__name__: None for m in network.model.modules() if is_block(m) and find_branch(m) is not None}
    reason = _no_path_gradients(network, size, trace)
    return Support(name, module, True, not reason, len(network), tuple(classes), reason)


def supported_models(pattern: str = "*", workers: int | None = None) -> Iterator[Support]:
    """Ask :func:`supported` of many timm models, in timm's order.

    Args:
        pattern: Which names, with the wildcards ``*`` and ``?``; ``resnet`` alone means that name.
        workers: Number of processes; default one for each core, or this one alone for a few names.

    Yields:
        The answer for each name, as soon as it is known. All of timm takes about ten minutes divided by the number of
        cores.

    Raises:
        ValueError: If no timm model has such a name.

    Example:
        >>> import resnet_lesion as rl
        >>> [answer.n_blocks for answer in rl.supported_models("resnet?0")]
        [16]
    """
    names = [pattern] if _is_known(pattern) else [name for name in _known_names() if fnmatchcase(name, pattern)]
    if not names:
        raise ValueError(
            f"expected a name of timm's models or a pattern such as 'resnet*', got {pattern!r}."
            f"{did_you_mean(pattern, _known_names())}"
        )
    workers = workers or min(os.cpu_count() or 1, len(names) // _PER_PROCESS)
    if workers <= 1:
        yield from map(supported, names)
        return
    yield from in_processes(supported, names, workers)


def _known_names() -> list[str]:
    import timm  # here, so that analysing another model does not load all of timm

    return timm.list_models()


def _is_known(name: str) -> bool:
    import timm

    return timm.is_model(name)


def _built(name: str) -> nn.Module:
    import timm

    if not _is_known(name):
        raise ValueError(f"timm has no model {name!r}.{did_you_mean(name.partition('.')[0], _known_names())}")
    try:
        with torch.device("meta"):
            model: nn.Module = timm.create_model(name)
    except (NotImplementedError, RuntimeError):  # before 1.0.21, many need values while they are made
        model = timm.create_model(name).to("meta")
    return model


def _twin(model: nn.Module | ResidualNetwork) -> nn.Module:
    """Copy a model without copying its weights."""
    original: Any = model.model if isinstance(model, ResidualNetwork) else model
    if not isinstance(original, nn.Module):
        raise TypeError(f"expected a torch.nn.Module or the name of a timm model, got {type(original).__name__}.")
    original = getattr(original, "_orig_mod", original)
    memo: dict[int, object] = {}
    for parameter in original.parameters():
        memo[id(parameter)] = nn.Parameter(torch.empty_like(parameter, device="meta"), parameter.requires_grad)
    for buffer in original.buffers():
        memo[id(buffer)] = torch.empty_like(buffer, device="meta")
    twin: nn.Module = copy.deepcopy(original, memo)
    return twin


def _short(error: Exception) -> str:
    if isinstance(error, AdapterError | TypeError | ValueError):
        return str(error).partition(" Register an adapter")[0]
    return " ".join([f"{type(error).__name__}: {error}", *getattr(error, "__notes__", ())])


def _no_path_gradients(network: ResidualNetwork, size: Sequence[int], trace: Trace) -> str:
    def total(output: Tensor) -> Tensor:
        return output.flatten(1).sum(1)

    def stand_in(shape: Sequence[int]) -> Forward:
        return lambda x: x.new_empty(len(x), *shape)

    # what is between the blocks tells whether they are in a row, so they need not run again
    stand_ins = map(stand_in, trace.output_shapes)
    modules = [block.module for block in network.blocks]
    try:
        with (
            network.isolated(),
            replaced_forwards(dict(zip(modules, stand_ins, strict=True))),
            torch.device("meta"),
        ):
            Linearization(network, torch.empty(_BATCH, *size, dtype=network.dtype), total)
    except Exception as error:
        return _short(error)
    return ""
