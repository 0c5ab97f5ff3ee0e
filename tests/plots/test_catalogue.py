import numpy as np
import pytest
import xarray as xr
from helpers import synthetic
from matplotlib import pyplot
from matplotlib.image import imread

import resnet_lesion as rl
from resnet_lesion import plots
from resnet_lesion.plots import catalogue
from resnet_lesion.results.kinds import KINDS

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


def test_figures_are_of_kinds():
    assert set(catalogue.FIGURES) <= set(KINDS)
    names = [draw.__name__ for draws in catalogue.FIGURES.values() for draw in draws]
    assert len(set(names)) == len(names)
    assert all(getattr(plots, name) is DRAWN[name] for name in names)


def test_what_is_counted_without_a_network_is_drawn():
    assert list(plots.available(rl.path_fraction(5).to_dataset(name="path_fraction"))) == ["path_lengths"]
    left = rl.remaining_fraction(5, [1, 2]).to_dataset(name="remaining_fraction")
    assert list(plots.available(left)) == ["remaining_paths"]


def test_each_number_for_every_block_has_a_figure_where_there_is_no_other():
    statistics = synthetic.block_statistics()
    more = statistics.assign(
        alignment_standard_error=statistics.alignment * 0 + 0.1,
        name_of=("layer", ["block"] * synthetic.N),
        table=(("layer", "other"), np.zeros((synthetic.N, 2))),
        total=3,
    )
    drawn = plots.available(more)
    assert list(drawn) == ["branch_to_skip_ratio", "alignment"]
    assert drawn["alignment"](more).get_title("left") == "Alignment: tiny.test"
    assert list(plots.available(more.assign(error=synthetic.deletion().error))) == ["error_by_block"]


def test_at_most_six_networks_are_compared():
    for n, compared in ((1, False), (6, True), (7, False)):
        tree = xr.DataTree.from_dict({f"network{i}/deletion": synthetic.deletion() for i in range(n)})
        assert ("deletion-compared" in plots.figures(tree)) == compared
