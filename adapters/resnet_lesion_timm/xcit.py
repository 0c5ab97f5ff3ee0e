"""Blocks of ``timm.models.xcit``: XCiT. The class attention normalises on its skip as well; it stays as it is."""

from __future__ import annotations

from timm.models.xcit import XCABlock
from torch import Tensor

from resnet_lesion import Arguments, Chain, Residual, register_adapter


@register_adapter(XCABlock)
def cross_covariance(block: XCABlock) -> Chain:
    """``x + drop_path(gamma * f(norm(x)))`` with f the attention, the local patch interaction, the MLP in turn."""
    arguments = Arguments("H", "W")

    def attn(x: Tensor) -> Tensor:
        y: Tensor = block.gamma1 * block.attn(x)
        return y

    def local(x: Tensor) -> Tensor:
        y: Tensor = block.gamma3 * block.local_mp(x, arguments["H"], arguments["W"])
        return y

    def mlp(x: Tensor) -> Tensor:
        y: Tensor = block.gamma2 * block.mlp(x)
        return y

    links = {
        "attn": Residual(block.norm1, attn, block.drop_path1),
        "local_mp": Residual(block.norm3, local, block.drop_path3),
        "mlp": Residual(block.norm2, mlp, block.drop_path2),
    }
    return Chain(block, links, arguments)
