"""One plain forward pass, watched: the blocks run once each, in order, on a tensor that they leave alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from resnet_lesion.blocks.block import Block
from resnet_lesion.errors import AdapterError

_SHOWN = 8  # how many parts of an output an error lists


def watch(
    model: nn.Module,
    blocks: Sequence[Block],
    inputs: Tensor,
    note: Callable[[int, Tensor, Tensor], None],
    *args: object,
) -> object:
    """Run the model once as it stands.

    Args:
        model: The model; the caller has put it into the state that it is to run in.
        blocks: Its blocks, in forward order.
        inputs: What the model takes, on its device.
        note: Called after each block with its index, input and output.
        *args: Further arguments of the model.

    Returns:
        What the model returns.

    Raises:
        AdapterError: If the blocks do not run once each in order on one tensor that they leave alone.
    """
    ran, versions = list[int](), dict[int, int]()

    def before(i: int, _module: nn.Module, given: tuple[Tensor, ...], named: dict[str, object]) -> None:
        if len(given) != 1 or named:
            raise AdapterError(
                f"expected block {blocks[i].layer!r} to be called with one tensor, "
                f"got {len(given)} positional arguments and {sorted(named) or 'no keywords'}."
            )
        versions[i] = version_of(given[0])

    def after(i: int, _module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
        ran.append(i)
        if version_of(given[0]) != versions[i]:
            raise overwrites_input(blocks[i])
        note(i, given[0], output)

    with ExitStack() as stack:
        for i, block in enumerate(blocks):
            stack.enter_context(block.module.register_forward_pre_hook(partial(before, i), with_kwargs=True))
            stack.enter_context(block.module.register_forward_hook(partial(after, i)))
        output = run_model(model, inputs, *args)
    check_run_order(ran, [block.layer for block in blocks])
    return output


def run_model(model: nn.Module, inputs: Tensor, *args: object) -> object:
    """Run a model; an exception of its own stays what it is, with a note on what it was given and what it expects."""
    try:
        return model(*copies(inputs, *args))
    except (AdapterError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        note = f"This came up as {type(model).__name__} ran on inputs of shape {tuple(inputs.shape)}."
        size = (getattr(model, "pretrained_cfg", None) or {}).get("input_size")
        if size:
            note += f" Its pretrained_cfg says (N, {', '.join(map(str, size))})."
        error.add_note(note)
        raise


def as_output(output: object, n_rows: int) -> Tensor:
    """Return what a model returned if it is one tensor (n_rows, ...).

    Raises:
        AdapterError: If it is anything else; it says what there is and how to take one tensor out of it.
    """
    if isinstance(output, Tensor):
        if output.shape[:1] == (n_rows,):
            return output
        raise AdapterError(
            f"expected a model that returns one tensor with a row for each of {n_rows} inputs, got "
            f"{tuple(output.shape)}. Let it keep the batch in the first dimension."
        )
    kind, parts = type(output).__name__, _parts(output)
    tensors = {how: part for how, part in parts.items() if isinstance(part, Tensor)}
    fitting = [how for how, part in tensors.items() if part.shape[:1] == (n_rows,)]
    message = f"expected a model that returns one tensor with a row for each of {n_rows} inputs, got {kind}"
    if parts:
        message += f" with {', '.join(f'{how} {_shape(part)}' for how, part in [*parts.items()][:_SHOWN])}"
    if len(parts) > _SHOWN:
        message += f" and {len(parts) - _SHOWN} more"
    if fitting:
        how = next((how for how in fitting if "logits" in how), fitting[0])
        message += (
            f". Take one of them: model = torch.nn.Sequential(model, resnet_lesion.Function(lambda out: out{how}))"
        )
    raise AdapterError(f"{message}.")


def _parts(output: object) -> dict[str, object]:
    """Return what an output is made of, by how each part is written behind the output."""
    if isinstance(output, Mapping):  # those of transformers too, which have their keys as attributes
        return {f"[{key!r}]": part for key, part in output.items()}
    if isinstance(output, tuple) and (fields := getattr(output, "_fields", ())):
        return {f".{name}": part for name, part in zip(fields, output, strict=True)}
    if isinstance(output, tuple | list):
        return {f"[{i}]": part for i, part in enumerate(output)}
    return {f".{name}": part for name, part in getattr(output, "__dict__", {}).items() if not name.startswith("_")}


def _shape(part: object) -> str:
    return str(tuple(part.shape)) if isinstance(part, Tensor) else type(part).__name__


def slice_batch(chosen: slice | list[int], inputs: Tensor, *args: object) -> tuple[Any, ...]:
    """Return some of the images, and of each further argument their part, as :func:`rows_of` takes it."""
    return inputs[chosen], *(rows_of(arg, chosen, len(inputs)) for arg in args)


def rows_of(value: Any, chosen: slice | list[int], n: int) -> Any:
    """Return the rows of some of the n images if the value is a tensor that has one for each, else all of it."""
    return value[chosen] if isinstance(value, Tensor) and value.ndim > 0 and len(value) == n else value


def copies(*args: Any) -> tuple[Any, ...]:
    """Return what a model is given, its tensors copied: it may write into them, and others still need them."""
    return tuple(arg.clone() if isinstance(arg, Tensor) else arg for arg in args)


def check_run_order(ran: Sequence[int], layers: Sequence[str]) -> None:
    """Refuse a model that does not run its blocks once each, in the order of their names."""
    if list(ran) == list(range(len(layers))):
        return
    counts = Counter(ran)
    for i, layer in enumerate(layers):
        if counts[i] != 1:
            raise AdapterError(f"block {layer!r} ran {counts[i]} times in one forward pass; expected once.")
    raise AdapterError(f"the blocks ran in the order {[layers[i] for i in ran]}; expected the order of their names.")


def version_of(x: Tensor) -> int:
    """Return how often a tensor was written to; always 0 in inference mode, where nothing is counted."""
    return 0 if x.is_inference() else x._version


def overwrites_input(block: Block) -> AdapterError:
    """Make the error for a block that works in place on its input.

    Its shortcut passes on what the branch left there, so that the block without its branch is another function.
    """
    return AdapterError(
        f"block {block.layer!r} ({type(block.module).__name__}) overwrites its input, which its shortcut and other "
        "lesions still need. Let the branch begin out of place: inplace=False."
    )
