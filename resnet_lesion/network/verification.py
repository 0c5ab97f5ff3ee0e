"""One plain forward pass in which every block and every chain is compared with what its adapter says of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from resnet_lesion.blocks.block import Block, in_place_of_forward, is_patched, replaced_forwards
from resnet_lesion.blocks.chain import Chain
from resnet_lesion.errors import HOW_TO, AdapterError
from resnet_lesion.network.forward_pass import check_run_order, overwrites_input, run_model, version_of
from resnet_lesion.network.precision import relative_deviation, within_rounding


@dataclass
class Verified:
    """What the pass showed.

    Attributes:
        output: What the model returned.
        input_shapes: The shape of each block's input, without the batch.
        output_shapes: The shape of each block's output, without the batch.
        deviations: How far each block, and each chain, is from what its adapter says, relative to its largest output.
        idle: The names of the blocks whose branch returned nothing but zeros.
    """

    output: object = None
    input_shapes: list[tuple[int, ...]] = field(default_factory=list)
    output_shapes: list[tuple[int, ...]] = field(default_factory=list)
    deviations: list[float] = field(default_factory=list)
    idle: list[str] = field(default_factory=list)


def verified_pass(
    model: nn.Module, blocks: Sequence[Block], chains: Sequence[Chain], inputs: Tensor, *args: object
) -> Verified:
    """Run a model once as it is, and check on the way ``post(shortcut(x) + scale(branch(x)))`` for each block.

    A module that holds a chain runs its own forward; its links run behind it, on the same input, to be compared. What
    hooks on a block do to its input and output belongs to its place, not to the block.

    Args:
        model: The model; the caller has put it into the state that it is to run in, with its chains closed.
        blocks: Its blocks, in forward order.
        chains: The modules of which some are links.
        inputs: What the model takes, (N, ...) on its device.
        *args: Further arguments of the model.

    Raises:
        AdapterError: If a block or a chain deviates from its adapter, or the blocks do not run once each, in order, on
            one tensor of N rows that they leave alone.
    """
    found, ran = Verified(), list[int]()

    def advice(module: nn.Module) -> str:
        if is_patched(module):
            return (
                "Its forward was replaced on this instance, which its adapter knows nothing of: restore it, or write a "
                f"class and an adapter for it; see {HOW_TO}."
            )
        return f"Correct its adapter; see {HOW_TO}."

    by_module = {block.module: block for block in blocks}

    def block_check(i: int) -> Callable[..., Tensor]:
        block, forward = blocks[i], blocks[i].module.forward
        # in a surrounding lesion another block, or this one's shortcut only
        runs: Any = getattr(next(in_place_of_forward(block.module), forward), "__self__", None)

        def run(*given: Tensor, **named: object) -> Tensor:
            if len(given) != 1 or named:
                raise AdapterError(
                    f"expected block {block.layer!r} to be called with one tensor, "
                    f"got {len(given)} positional arguments and {sorted(named) or 'no keywords'}."
                )
            (x,) = given
            version, actual = version_of(x), by_module.get(runs, block)
            y: Tensor
            if isinstance(runs, Block):
                y = forward(x)
            else:
                with actual.kept_residual() as take_residual:
                    y = forward(x)
                    residual = take_residual()
                try:
                    found.deviations.append(_deviation(actual, x, residual, y, advice(actual.module)))
                except AdapterError:
                    if not within_rounding(relative_deviation(forward(x), y), y.dtype):  # then no adapter can be right
                        raise _unsteady(block) from None
                    raise
                if not residual.any():
                    found.idle.append(block.layer)
            if version_of(x) != version:
                raise overwrites_input(block)
            if not len(x) == len(y) == len(inputs):
                raise AdapterError(
                    f"expected {len(inputs)} rows at block {block.layer!r}, one for each image, got {len(x)} and after "
                    f"it {len(y)}: the model changes its batch dimension, along which lesions are stacked."
                )
            ran.append(i)
            found.input_shapes.append(tuple(x.shape[1:]))
            found.output_shapes.append(tuple(y.shape[1:]))
            return y

        return run

    checks = {block.module: block_check(i) for i, block in enumerate(blocks)}
    names = {module: name for name, module in model.named_modules()}
    linked = {link for chain in chains for link in chain.links.values()}

    def chain_check(chain: Chain) -> Callable[..., Tensor]:
        forward, where = chain.module.forward, f"{names[chain.module]!r} ({type(chain.module).__name__})"
        of_links = {link: checks[link] for link in chain.links.values() if link in checks}

        def run(x: Tensor, *more: Any, **named: Any) -> Tensor:
            again = x.clone()  # the module may work on it in place
            y: Tensor = forward(x, *more, **named)
            with replaced_forwards(of_links):
                try:
                    linked_up = chain(again, *more, **named)
                except RuntimeError as error:
                    if type(error) is not RuntimeError:  # out of memory, or the model's own: not the adapter's fault
                        raise
                    raise AdapterError(
                        f"{where} cannot run the links {list(chain.links)} in a row: {error}. {advice(chain.module)}"
                    ) from error
            deviation = relative_deviation(linked_up, y) if linked_up.shape == y.shape else float("inf")
            if not within_rounding(deviation, y.dtype):
                raise AdapterError(
                    f"{where} does not compute the links {list(chain.links)} one after another: "
                    f"relative deviation {deviation:.3g}. {advice(chain.module)}"
                )
            found.deviations.append(deviation)
            return y

        return run

    for block in blocks:
        for name in block.entries:
            block.part(name)  # must exist
    own = {module: check for module, check in checks.items() if module not in linked}
    with replaced_forwards(own | {chain.module: chain_check(chain) for chain in chains}):
        found.output = run_model(model, inputs, *args)
    check_run_order(ran, [block.layer for block in blocks])
    return found


def _unsteady(block: Block) -> AdapterError:
    return AdapterError(
        f"block {block.layer!r} ({type(block.module).__name__}) gives the same input other outputs each time, in eval "
        "mode too: it draws random numbers, or observers measure in it. Switch that off; observers by "
        "model.apply(torch.ao.quantization.disable_observer)."
    )


def _deviation(block: Block, x: Tensor, residual: Tensor, y: Tensor, advice: str) -> float:
    """Return how far a block's output is from what its adapter makes of its parts."""
    try:
        expected = block.combine(x, residual)
    except RuntimeError as reason:
        if type(reason) is not RuntimeError:
            raise
        raise AdapterError(
            f"block {block.layer!r} ({type(block.module).__name__}) cannot be put together as {block.branch} "
            f"says: {reason}. {advice}"
        ) from reason
    if expected.shape != y.shape:
        raise AdapterError(
            f"block {block.layer!r}: the adapter makes shape {tuple(expected.shape)}, "
            f"the block {tuple(y.shape)}. {advice}"
        )
    deviation = relative_deviation(expected, y)
    if not within_rounding(deviation, y.dtype):
        raise AdapterError(
            f"block {block.layer!r} ({type(block.module).__name__}) is not post(shortcut(x) + scale(branch(x))) as "
            f"{block.branch} says: relative deviation {deviation:.3g}. {advice}"
        )
    return deviation
