"""What a user would write instead, each as well as it can be done without sharing work between lesions.

Lesions are order rows, (n_lesions, n_blocks): at each position the index of the block that runs there, or -1. Each of
the lesion loops returns two numbers for each image under each lesion, as :func:`scores` gives them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack

import numpy as np
import torch
from captum.attr import FeatureAblation, LayerFeatureAblation
from torch import Tensor, nn
from torch.nn import functional as F

import resnet_lesion as rl


def scores(logits: Tensor, targets: Tensor) -> Tensor:
    """Return (N, 2): by how much the right class leads, in standard deviations of the logits, and the cross-entropy.

    An image is classified correctly if its lead is positive; one whose lead is almost zero may go either way.
    """
    target = targets[:, None]
    lead = logits.gather(1, target)[:, 0] - logits.scatter(1, target, -torch.inf).amax(1)
    return torch.stack([lead / logits.std(1), F.cross_entropy(logits, targets, reduction="none")], dim=1)


@torch.inference_mode()
def hook_loop(network: rl.ResidualNetwork, rows: np.ndarray, inputs: Tensor, targets: Tensor) -> Tensor:
    """One forward pass for each lesion, with hooks that make the branches of deleted blocks zero."""
    exits, outputs = branch_exits(network), []
    for row in rows:
        with ExitStack() as hooks:
            for i in np.flatnonzero(row == -1):
                hooks.enter_context(exits[i].register_forward_hook(_zero))
            outputs.append(network.model(inputs))
    return _scores_of_each(outputs, targets)


@torch.inference_mode()
def replaced_blocks(network: rl.ResidualNetwork, rows: np.ndarray, inputs: Tensor, targets: Tensor) -> Tensor:
    """One forward pass for each lesion, with the model's blocks placed as the row says, and an identity for -1."""
    blocks, outputs = [block.module for block in network.blocks], []
    without = [without_branch(*pair) for pair in zip(blocks, network.branches, strict=True)]
    try:
        for row in rows:
            put(network, [blocks[i] if i >= 0 else own for own, i in zip(without, row, strict=True)])
            outputs.append(network.model(inputs))
    finally:
        put(network, blocks)
    return _scores_of_each(outputs, targets)


@torch.inference_mode()
def captum_layers(network: rl.ResidualNetwork, rows: np.ndarray, inputs: Tensor, targets: Tensor) -> Tensor:
    """Captum's LayerFeatureAblation: one attribution for each block, whose branch output is one feature.

    It runs the model three times for each: to see the layer's output, with that output put back, and without it.
    Captum ablates one layer at a time, so every row must delete exactly one block.
    """
    exits, whole, left = branch_exits(network), list[Tensor](), []

    def forward(images: Tensor) -> Tensor:
        found = scores(network.model(images), targets)
        if not whole:  # Captum's first pass ablates nothing
            whole.append(found)
        return found

    for row in rows:
        (i,) = np.flatnonzero(row == -1)
        one_feature = torch.zeros(1, dtype=torch.int64, device=inputs.device)
        lost = LayerFeatureAblation(forward, exits[i]).attribute(inputs, layer_mask=one_feature)
        # (N * 2, ...) in the shape of the layer: the same number everywhere in it
        left.append(whole[0] - lost.flatten(1)[:, 0].reshape(-1, 2))
    return torch.stack(left)


@torch.inference_mode()
def captum_features(
    network: rl.ResidualNetwork, rows: np.ndarray, inputs: Tensor, targets: Tensor, perturbations_per_eval: int = 1
) -> Tensor:
    """Captum's FeatureAblation, at its best: one attribution for all lesions, each of them a feature, as a switch.

    All switches are off; ablating one turns it on, and the forward function multiplies the branches of the blocks that
    the lesion deletes by zero. Captum runs the model once as it is and once for each feature, several of them in one
    batch.
    """
    exits, whole = branch_exits(network), list[Tensor]()
    deleted = torch.as_tensor(rows == -1, dtype=inputs.dtype, device=inputs.device)

    def forward(switches: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        gone = switches @ deleted
        with ExitStack() as hooks:
            for i in gone.any(0).nonzero()[:, 0].tolist():
                hooks.enter_context(exits[i].register_forward_hook(_times(1 - gone[:, i])))
            found = scores(network.model(images), labels)
        if not whole:
            whole.append(found)
        return found

    lost = FeatureAblation(forward).attribute(
        inputs.new_zeros(len(inputs), len(rows)),
        baselines=1,
        additional_forward_args=(inputs, targets),
        perturbations_per_eval=perturbations_per_eval,
    )
    return whole[0] - lost.reshape(len(inputs), 2, -1).permute(2, 0, 1)


def routed_loop(network: rl.ResidualNetwork, paths: np.ndarray, inputs: Tensor, targets: Tensor) -> Tensor:
    """Return (n_paths,) norms of the gradients along single paths, averaged over the images: two passes for each."""
    norms = []
    for path in paths:
        with network.routed(path):
            norms.append(plain_pass(network.model, inputs, targets).flatten(1).norm(dim=1).mean())
    return torch.stack(norms)


def plain_pass(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    """Return each image's gradient by one forward and one backward pass, (N, ...)."""
    leaf = inputs.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(F.cross_entropy(model(leaf), targets, reduction="sum"), leaf)
    return gradient


def branch_exits(network: rl.ResidualNetwork) -> list[nn.Module]:
    """Find the last module of each block's branch."""
    return [block.part(block.branch.exit) for block in network.blocks]


def without_branch(block: nn.Module, branch: rl.Branch) -> nn.Module:
    """Make the replacement of a deleted block: an identity, or the modules of its shortcut."""
    if branch.shortcut is None:
        return nn.Identity()  # before a ReLU too: the input comes from one
    parts = (branch.preact, branch.shortcut, branch.post)
    return nn.Sequential(*(block.get_submodule(str(name)) for name in parts if name is not None))


def put(network: rl.ResidualNetwork, modules: Iterable[nn.Module]) -> None:
    """Put modules into the places of the network's blocks."""
    for layer, module in zip(network.layers, modules, strict=True):
        parent, _, name = layer.rpartition(".")
        network.model.get_submodule(parent)._modules[name] = module


def _scores_of_each(outputs: list[Tensor], targets: Tensor) -> Tensor:
    found = scores(torch.cat(outputs), targets.repeat(len(outputs)))
    return found.reshape(len(outputs), len(targets), 2)


def _zero(_module: nn.Module, _args: object, output: Tensor) -> Tensor:
    return torch.zeros_like(output)


def _times(factor: Tensor) -> Callable[[nn.Module, object, Tensor], Tensor]:
    return lambda _module, _args, output: output * factor.reshape(-1, *[1] * (output.ndim - 1))
