import matplotlib

matplotlib.use("Agg")

import inspect
import pydoc
import re

import numpy as np
import pytest
import xarray as xr
from helpers import synthetic
from matplotlib import pyplot

from resnet_lesion import plots
from resnet_lesion.plots import catalogue
from resnet_lesion.reports.accessor import LesionAccessor


@pytest.fixture(autouse=True)
def _close():
    yield
    pyplot.close("all")


@pytest.mark.parametrize(
    ("make", "title"),
    [
        (synthetic.deletion, "Error with each block deleted alone"),
        (synthetic.random_deletion, "Error with many blocks deleted"),
        (synthetic.reorder, "Error with blocks swapped"),
        (synthetic.evaluation, "Error under each lesion"),
        (synthetic.path_gradient, "Gradient of all paths of one length together"),
        (synthetic.sampled_path_gradient, "Gradient along single paths"),
        (synthetic.effective_path, "Gradient from paths of each length"),
        (synthetic.block_statistics, "Branch to skip ratio"),
    ],
)
def test_plot_draws_the_main_figure_of_every_result(make, title):
    assert make().lesion.plot().get_title("left") == f"{title}: tiny.test"


FIGURES = {draw.__name__: draw for draws in catalogue.FIGURES.values() for draw in draws}


def test_every_figure_has_a_method():
    methods = {name for name in dir(xr.Dataset().lesion) if name.startswith("plot_")}
    assert methods == {f"plot_{name}" for name in (*FIGURES, "block_statistic")}
    for group in synthetic.tree().leaves:
        dataset = group.to_dataset()
        for name in FIGURES.keys() & plots.available(dataset).keys():
            _, ax = pyplot.subplots()
            by_method = getattr(dataset.lesion, f"plot_{name}")(ax=ax)
            assert by_method is ax
            by_function = FIGURES[name](dataset)
            assert by_method.get_title("left") == by_function.get_title("left")
            pyplot.close("all")


@pytest.mark.parametrize("name", [*FIGURES, "block_statistic"])
def test_a_figure_is_described_once_and_its_method_shows_that_less_the_dataset(name):
    draw, method = getattr(plots, name), vars(LesionAccessor)[f"plot_{name}"]
    of_function, of_method = (inspect.getdoc(one).splitlines() for one in (draw, method))
    changed = [line for line in of_function if line not in of_method]
    assert [line.split()[0] for line in changed] == ["dataset:", ">>>"]
    new = [line for line in of_method if line not in of_function]
    assert [re.sub(r"\(.*", "", line).split() for line in new] == [[">>>", f"result.lesion.plot_{name}"]]
    assert method.__qualname__ == f"LesionAccessor.plot_{name}"
    _, *options = inspect.signature(draw).parameters.values()
    assert list(inspect.signature(getattr(xr.Dataset().lesion, f"plot_{name}")).parameters.values()) == options
    assert f"plot_{name}(ax: 'Axes | None' = None)" in pydoc.render_doc(
        getattr(xr.Dataset().lesion, f"plot_{name}"), renderer=pydoc.plaintext
    ).replace("name: 'str' = 'branch_to_skip_ratio', ", "")


def test_plot_block_statistic_takes_a_name():
    ax = synthetic.block_statistics().lesion.plot_block_statistic("alignment")
    assert ax.get_title("left") == "Alignment: tiny.test"


def test_plot_refuses_what_has_no_figure():
    with pytest.raises(ValueError, match=r"expected a result of an analyzer, got .* nothing to draw among \['x'\]"):
        xr.Dataset({"x": 1}).lesion.plot()


def test_auc_is_the_mean_error_over_the_range():
    # trapezoids of the means 0.1, 0.2, 0.6 at 1, 2, 6
    assert synthetic.random_deletion().lesion.auc() == pytest.approx((0.15 * 1 + 0.4 * 4) / 5)
    constant = synthetic.random_deletion()
    constant["error"] = constant.error * 0 + 0.3
    assert constant.lesion.auc() == pytest.approx(0.3)


def test_auc_does_not_depend_on_the_order_of_the_numbers():
    dataset = synthetic.random_deletion()
    assert dataset.isel(n_deleted=[2, 0, 1]).lesion.auc() == pytest.approx(dataset.lesion.auc())


@pytest.mark.parametrize("dataset", [synthetic.deletion(), synthetic.random_deletion().isel(n_deleted=[0])])
def test_auc_needs_several_numbers(dataset):
    with pytest.raises(ValueError, match="at least two values of n_deleted"):
        dataset.lesion.auc()


def test_effective_range():
    dataset = synthetic.effective_path()
    assert dataset.lesion.effective_range() == (2, 6)
    names = ("effective_low", "effective_high")
    assert dataset[list(names)].rename({name: f"sum_{name}" for name in names}).lesion.effective_range() == (2, 6)
    with pytest.raises(ValueError, match=r"'effective_low', as EffectivePath\.analyze returns it"):
        synthetic.deletion().lesion.effective_range()


def test_decay_factor():
    assert synthetic.sampled_path_gradient().lesion.decay_factor() == pytest.approx(0.5)
    underflown = synthetic.sampled_path_gradient()
    underflown["mean_gradient_norm"][8:] = 0
    assert underflown.lesion.decay_factor() == pytest.approx(0.5)
    assert np.isnan((underflown * 0).lesion.decay_factor())
    with pytest.raises(ValueError, match="mean_gradient_norm"):
        synthetic.deletion().lesion.decay_factor()


def test_most_important():
    worst = synthetic.deletion().lesion.most_important(2)
    assert worst.layer.values.tolist() == ["stages.0.blocks.0", "stages.1.blocks.0"]
    assert worst.values.tolist() == [0.5, 0.3]
    with pytest.raises(ValueError, match="each block deleted alone"):
        synthetic.random_deletion().lesion.most_important()


def test_a_number_of_blocks_is_at_least_one():
    with pytest.raises(ValueError, match="expected n >= 1, got -1"):
        synthetic.deletion().lesion.most_important(-1)
