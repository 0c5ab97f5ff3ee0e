"""A user's code as a type checker sees it: .ci/run checks it against the installed wheel. It is not run."""

from typing import assert_type

import torch
import xarray as xr
from matplotlib.axes import Axes
from torch import Tensor, nn

import resnet_lesion as rl


@rl.register_adapter(nn.Identity)
def described(block: nn.Identity) -> rl.Branch:
    return rl.Branch(entry="conv1", exit="bn2", post=torch.relu)


def studied(model: nn.Module, loader: list[tuple[Tensor, Tensor]]) -> None:
    network = rl.wrap(model)
    assert_type(network, rl.ResidualNetwork)
    assert_type(network.layers, tuple[str, ...])
    assert_type(network.verify(loader[0][0]), float)
    with network.lesioned(delete=["layer1.0"]) as lesioned:
        assert_type(lesioned, nn.Module)

    deletion = rl.Deletion(network)
    assert_type(deletion.analyze(loader, n_deleted=range(1, 4), checkpoint="run"), xr.Dataset)
    assert_type(deletion.attribute(loader[0][0], target=loader[0][1]), Tensor)
    assert_type(rl.Reorder(model).analyze(loader, n_swaps=2, shard=(0, 2)), xr.Dataset)
    assert_type(rl.PathGradient(model).analyze(loader, method="sample"), xr.Dataset)
    assert_type(rl.EffectivePath(model).analyze(loader, coverage=0.9), xr.Dataset)
    assert_type(rl.BlockStatistics(model).analyze(loader), xr.Dataset)
    assert_type(rl.evaluate(model, loader, [[0, 1, -1]]), xr.Dataset)
    tree = rl.study(model, loader, n_draws=2)
    assert_type(tree, xr.DataTree)
    rl.save(tree, "study.nc")
    assert_type(rl.open("study.nc"), xr.Dataset | xr.DataTree)
    assert_type(rl.LesionAccessor(tree["deletion"].to_dataset()).most_important(), xr.DataArray)
    assert_type(rl.supported("resnet50").n_blocks, int)
    assert_type(rl.path_fraction(54), xr.DataArray)
    assert_type(rl.train(model, loader, rl.Recipe(epochs=2)), xr.Dataset)
    assert_type(rl.testing.check_adapter(model, loader[0][0]), float)
    accessor = rl.LesionAccessor(tree["block_statistics"].to_dataset())
    assert_type(accessor.plot_block_statistic("input_output_cosine"), Axes)
    accessor.plot_error_by_block(ax=3)  # type: ignore[arg-type]
