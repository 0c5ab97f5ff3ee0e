import pytest
import xarray as xr
from helpers import synthetic
from matplotlib import pyplot
from matplotlib.image import imread

from resnet_lesion import plots
from resnet_lesion.plots import catalogue

DRAWN = {draw.__name__: draw for draws in catalogue.FIGURES.values() for draw in draws}


@pytest.mark.parametrize("name", [name for name in DRAWN if name != "error_by_lesion"])
def test_axes_that_are_given_are_drawn_on(name):
    groups = [*(group.to_dataset() for group in synthetic.tree().leaves), synthetic.training()]
    (dataset,) = [dataset for dataset in groups if name in plots.available(dataset)]
    _, (left, right) = pyplot.subplots(1, 2)
    assert plots.available(dataset)[name](dataset, ax=right) is right
    assert not left.has_data()
    assert len(pyplot.get_fignums()) == 1


@pytest.mark.parametrize("name", DRAWN)
def test_a_dataset_without_the_variable_is_refused(name):
    with pytest.raises(ValueError, match=r"expected a dataset with '\w+'.*, got one with x\. dataset\.lesion\.plot"):
        DRAWN[name](xr.Dataset({"x": ("layer", [1, 2])}))


def test_figures_of_a_study():
    drawn = plots.figures(synthetic.tree())
    assert list(drawn) == [
        "deletion-error_by_block",
        "random_deletion-error_by_number_deleted",
        "random_deletion-remaining_paths",
        "reorder-error_by_kendall_tau",
        "path_gradient-sum_gradient_by_length",
        "path_gradient-layer_gradient",
        "sampled_path_gradient-mean_gradient_by_length",
        "effective_path-effective_paths",
        "effective_path-path_lengths",
        "block_statistics-branch_to_skip_ratio",
        "block_statistics-alignment",
    ]
    assert not pyplot.get_fignums()


def test_figures_of_whatever_is_there():
    assert list(plots.figures(synthetic.deletion())) == ["error_by_block"]
    nested = xr.DataTree.from_dict({"small/deletion": synthetic.deletion(), "large/deletion": synthetic.deletion()})
    names = ["small-deletion-error_by_block", "large-deletion-error_by_block", "deletion-compared"]
    assert list(plots.figures(nested)) == names
    with pytest.raises(ValueError, match=r"nothing to draw: its variables are \['x'\]"):
        plots.figures(xr.Dataset({"x": ("y", ["a"])}))


def test_nothing_is_cut_off_the_files(tmp_path):
    makers = (synthetic.deletion, synthetic.path_gradient, synthetic.block_statistics)
    tree = xr.DataTree.from_dict({make.__name__: make() for make in makers})
    paths = plots.save_figures(tree, tmp_path / "new" / "folder")
    assert [path.name for path in paths] == [f"{name}.png" for name in plots.figures(tree)]
    for path in paths:
        pixels = imread(path)[..., :3]
        edges = [pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]]
        assert all((edge == 1).all() for edge in edges), path
        assert pixels.min() < 0.5
