"""Blocks of ``timm.models.vision_transformer``: ViT, DeiT, SigLIP, DINO, hybrids, ...

A block adds two branches, so it is two blocks here: ``blocks.0.attn`` and ``blocks.0.mlp``.
"""

from __future__ import annotations

import torch
from timm.models import vision_transformer
from timm.models.vision_transformer import Block, ParallelScalingBlock, ParallelThingsBlock, ResPostBlock
from torch import Tensor, nn

from resnet_lesion import Branch, Chain, Residual, register_adapter


@register_adapter(Block)
def pre_norm(block: Block) -> Chain:
    """``x + drop_path1(ls1(attn(norm1(x))))``, then ``x + drop_path2(ls2(mlp(norm2(x))))``."""
    return Chain(
        block,
        {
            "attn": Residual(block.norm1, block.attn, block.ls1, block.drop_path1),
            "mlp": Residual(block.norm2, block.mlp, block.ls2, block.drop_path2),
        },
    )


@register_adapter(ResPostBlock)
def post_norm(block: ResPostBlock) -> Chain:
    """``x + drop_path1(norm1(attn(x)))``, then ``x + drop_path2(norm2(mlp(x)))``."""
    return Chain(
        block,
        {
            "attn": Residual(block.attn, block.norm1, block.drop_path1),
            "mlp": Residual(block.mlp, block.norm2, block.drop_path2),
        },
    )


_PARALLEL: list[type[nn.Module]] = [ParallelScalingBlock]
if hasattr(vision_transformer, "DiffParallelScalingBlock"):  # since timm 1.0.23
    _PARALLEL.append(vision_transformer.DiffParallelScalingBlock)


@register_adapter(*_PARALLEL)
def parallel_scaling(_block: nn.Module) -> Branch:
    """``x + drop_path(ls(...in_norm(x)))``: attention and MLP share one branch."""
    return Branch(entry="in_norm", exit="drop_path")


@register_adapter(ParallelThingsBlock)
def parallel_things(block: ParallelThingsBlock) -> Chain:
    """``x + attns[0](x) + attns[1](x)``, then ``x + ffns[0](x) + ffns[1](x)``: those in parallel share one branch."""

    def attns(x: Tensor) -> Tensor:
        return torch.stack([attn(x) for attn in block.attns]).sum(dim=0)

    def ffns(x: Tensor) -> Tensor:
        return torch.stack([ffn(x) for ffn in block.ffns]).sum(dim=0)

    return Chain(block, {"attns": Residual(attns), "ffns": Residual(ffns)})
