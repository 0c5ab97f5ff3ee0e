"""The forward engine: many lesions in one forward pass, with every shared prefix computed once.

Lesions that agree on their first positions share that work. While the model runs its own forward, each position holds
one stream of activations per distinct prefix, stacked along the batch; a stream forks where order rows diverge, and
passes through whichever block its rows name. The number of blocks computed is then the number of distinct
(prefix, block) pairs, which no exact evaluation can undercut.
"""

from __future__ import annotations

import torch
from torch import Tensor

from resnet_lesion.blocks.block import Forward, replaced_forwards
from resnet_lesion.engines.plan import Fork, Plan
from resnet_lesion.errors import AdapterError
from resnet_lesion.network.forward_pass import check_run_order, copies, overwrites_input, version_of
from resnet_lesion.network.orders import DELETED
from resnet_lesion.network.residual_network import ResidualNetwork


def forward_lesions(
    network: ResidualNetwork, plan: Plan, inputs: Tensor, *args: object, idle_branches: bool = False
) -> Tensor:
    """Run one forward pass of the model under every lesion of the plan.

    Args:
        network: The network, on the inputs' device and in eval mode.
        plan: The lesions.
        inputs: (N, ...) inputs; if the plan begins with several streams, those of one after another.
        *args: Further arguments of the model.
        idle_branches: Compute the branches of deleted blocks all the same, for a model that reads what is in them.

    Returns:
        (n_rows, N, ...) outputs.

    Raises:
        AdapterError: If the model does not run its blocks once each in order with the batch in the first dimension,
            or a block overwrites its input.
    """
    n, whole, ran = len(inputs) // plan.n_streams[0], network.forwards(), list[int]()

    def through(i: int, fork: Fork, x: Tensor) -> Tensor:
        if len(fork.runs) == 1:
            start, stop = fork.runs[0]
            chosen = x[start * n : stop * n]
        else:
            chosen = torch.cat([x[start * n : stop * n] for start, stop in fork.runs])
        if fork.block != DELETED:
            return whole[fork.block](chosen)
        block = network.blocks[i]
        if idle_branches:
            return block.with_idle_branch(chosen, whole[i])
        # what is stacked with other streams needs no copy of its own
        is_stacked = len(plan.forks[i]) > 1 and block.branch.post is None
        return block.shortcut(chosen) if is_stacked else block.without_branch(chosen)

    def at(i: int) -> Forward:
        block, forks, n_streams = network.blocks[i], plan.forks[i], plan.n_streams[i]

        def forward(x: Tensor) -> Tensor:
            ran.append(i)
            if ran[-1] != len(ran) - 1:
                check_run_order(ran, network.layers)
            if x.shape[0] != n_streams * n:
                raise AdapterError(
                    f"expected {n_streams} x {n} rows at block {block.layer!r}, got {x.shape[0]}: the model changes "
                    "its batch dimension between the blocks, so lesions cannot be stacked along it."
                )
            version = version_of(x)
            outputs = [through(i, fork, x) for fork in forks]
            if version_of(x) != version:
                raise overwrites_input(block)
            return outputs[0] if len(outputs) == 1 else torch.cat(outputs)

        return forward

    with replaced_forwards({block.module: at(i) for i, block in enumerate(network.blocks)}):
        output = network.model(*copies(inputs, *args))
    check_run_order(ran, network.layers)
    if not isinstance(output, Tensor) or output.shape[:1] != (plan.n_streams[-1] * n,):
        got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise AdapterError(
            f"expected one tensor with {plan.n_streams[-1]} x {n} rows from the model, got {got}: it changes its batch "
            "dimension after the blocks."
        )
    streams = output.reshape(-1, n, *output.shape[1:])
    return streams[plan.stream_on(output.device)]
