import numpy as np
import pytest
import xarray as xr
from helpers import synthetic

import resnet_lesion as rl
from resnet_lesion.paper.comparison import compare
from resnet_lesion.reports.tables import TABLES, claims_table, is_number, table_of
from resnet_lesion.results.kinds import KINDS

CLAIMS = xr.Dataset(
    {
        "figure": ("claim", ["5a", "6c"]),
        "statement": ("claim", ["It rises", "It is short"]),
        "quantity": ("claim", ["rank", "length"]),
        "paper": ("claim", [np.nan, 17.0]),
        "ours": ("claim", [0.98765, 13.0]),
        "low": ("claim", [np.nan, 12.0]),
        "high": ("claim", [np.nan, 14.0]),
        "criterion": ("claim", ["it is at least 0.95", "it is below 20"]),
        "agrees": ("claim", [True, False]),
    }
)


def test_the_worst_blocks_come_first():
    dataset = synthetic.deletion()
    head, *rows = table_of(dataset)
    assert head == ["layer (the 6 worst of 12)", "error", "95 % interval", "loss", "agreement"]
    worst = sorted(range(12), key=lambda i: -float(dataset.error[i]))[:6]
    assert [row[0] for row in rows[:2]] == [synthetic.LAYERS[i] for i in worst[:2]]
    assert [row[1] for row in rows] == [f"{float(dataset.error[i]):.3f}" for i in worst]
    assert rows[0] == ["stages.0.blocks.0", "0.500", "0.404 to 0.596", "1.000", "0.500"]


def test_lesions_keep_their_order():
    head, *rows = table_of(synthetic.evaluation())
    assert head == ["lesion", "error", "95 % interval", "loss", "agreement"]
    assert [row[:2] for row in rows] == [["0", "0.020"], ["1", "0.500"], ["2", "0.900"]]


def test_draws_are_averaged():
    dataset = synthetic.random_deletion()
    head, *rows = table_of(dataset)
    assert head == ["number of deleted blocks", "mean error", "mean loss", "mean agreement", "error, range"]
    for row, n in zip(rows, (1, 2, 6), strict=True):
        errors = [float(dataset.error.sel(n_deleted=n, draw=draw)) for draw in range(3)]
        mean = sum(errors) / 3
        cells = [str(n), f"{mean:.3f}", f"{2 * mean:.3f}", f"{1 - mean:.3f}", f"{min(errors):.3f} to {max(errors):.3f}"]
        assert row == cells


def test_swaps_have_their_tau():
    head, first, *_ = table_of(synthetic.reorder())
    assert head[1:3] == ["mean kendall_tau", "mean error"]
    assert first[:3] == ["1", "0.970", "0.030"]


def test_of_a_long_dimension_some_are_shown_with_both_ends():
    error = xr.DataArray(np.linspace(0, 1, 21)[:, None], {"n_deleted": range(1, 22)}, ("n_deleted", "draw"))
    head, *rows = table_of(error.to_dataset(name="error"))
    assert head[0] == "n_deleted (6 of 21)"
    assert [row[0] for row in rows] == ["1", "5", "9", "13", "17", "21"]


def test_what_has_no_numbers_left_to_average_has_its_variables_listed():
    head, *rows = table_of(synthetic.reorder().isel(n_swaps=0))
    assert head == ["variable", "over", "what it is"]
    assert ["kendall_tau", "draw", "Kendall's tau of the order with the original"] in rows


@pytest.mark.parametrize(
    ("dataset", "columns"),
    [
        (synthetic.path_gradient(), ["path_length", "sum_gradient_norm"]),
        (synthetic.sampled_path_gradient(), ["path_length", "mean_gradient_norm", "gradient_norm_standard_error"]),
        (synthetic.effective_path(), ["path_length", "path_fraction", "total_gradient", "gradient_share"]),
        (rl.path_fraction(12).to_dataset(name="path_fraction"), ["path_length", "path_fraction"]),
        (synthetic.block_statistics(), ["layer", "branch_to_skip_ratio", "alignment"]),
        (synthetic.training(), ["epoch", "train_loss", "validation_error"]),
    ],
)
def test_profiles_have_a_column_for_each_variable(dataset, columns):
    head, *rows = table_of(dataset)
    assert head == columns
    dim = columns[0]
    assert len(rows) == min(10, dataset.sizes[dim])
    for row in rows:
        one = dataset.sel({dim: row[0] if dim == "layer" else int(row[0])})
        assert row[1:] == [f"{float(one[name]):.4g}" for name in columns[1:]]


def test_trainings_are_compared_seed_by_seed():
    right = [np.arange(100) < n for n in (98, 97)], [np.arange(100) < n for n in (90, 99)]
    head, *rows = table_of(compare(*right, ("whole", "part")))
    assert head == ["seed", "error of whole", "error of part", "only whole right", "only part right", "p (McNemar)"]
    # eight coins of eight fall to one side with 2 / 2^8, two of two with 1 / 2
    assert rows == [["0", "0.0200", "0.1000", "8", "0", "0.00781"], ["1", "0.0300", "0.0100", "0", "2", "0.5"]]


def test_claims_stand_beside_what_came_out():
    head, first, second = table_of(CLAIMS)
    assert head == ["figure", "the paper", "measured", "paper's value", "ours", "same conclusion"]
    assert first == ["5a", "It rises", "rank", "", "0.988", "yes (yes if it is at least 0.95)"]
    assert second == ["6c", "It is short", "length", "17", "13 (12 to 14)", "no (yes if it is below 20)"]
    assert claims_table(CLAIMS) == table_of(CLAIMS)


def test_a_stranger_has_its_variables_listed():
    stranger = xr.Dataset({"x": (("a", "b"), [[1]], {"long_name": "some number"}), "y": 2})
    assert table_of(stranger) == [["variable", "over", "what it is"], ["x", "a, b", "some number"], ["y", "", ""]]


def test_tables_are_of_kinds():
    assert set(TABLES) <= set(KINDS)
    for dataset in (group.to_dataset() for group in synthetic.tree().leaves):
        rows = table_of(dataset)
        assert len({len(row) for row in rows}) == 1
        assert rows[0] != ["variable", "over", "what it is"]


@pytest.mark.parametrize("cell", ["", "0", "-1.5", "3 images", "nan", "inf", "1e-05"])
def test_numbers_go_to_the_right(cell):
    assert is_number(cell)


@pytest.mark.parametrize("cell", ["layer1.0", "-", "yes", " 1", "abc 3"])
def test_words_stay_at_the_left(cell):
    assert not is_number(cell)
