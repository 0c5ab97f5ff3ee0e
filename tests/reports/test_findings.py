import numpy as np
import xarray as xr
from helpers import synthetic

import resnet_lesion as rl
from resnet_lesion.paper.comparison import compare
from resnet_lesion.reports.findings import SENTENCES, findings
from resnet_lesion.results.kinds import KINDS


def test_findings_of_a_study_are_computed():
    assert findings(synthetic.tree()) == [
        "One block deleted: the median error is 2 % (none deleted: 2 %, inside the 95 % interval of 10 of the 12 "
        "blocks); the worst is 50 %, without stages.0.blocks.0.",
        "Many blocks deleted: the mean error is 10 % with 1 block, 20 % with 2 blocks and 60 % with 6 blocks deleted; "
        "normalised area under the curve 0.35.",
        "Paths left with 6 blocks deleted: 50 % of those through 1 block and 0.11 % of those through 6 blocks.",
        "Blocks swapped: the mean error is 3 % at a mean Kendall's tau of 0.97, 15 % at a mean Kendall's tau of 0.85 "
        "and 60 % at a mean Kendall's tau of 0.40.",
        "Gradient of all paths of one length together: its norm is largest, 1, for paths through 0 blocks; all lengths "
        "together are the gradient, except for at most 1e-07 of it.",
        "Gradient along one path: with each block that the path passes its mean norm changes by a factor of 0.5, "
        "fitted over 0 to 12 blocks.",
        "Effective paths: 88 % of the gradient passes 2 to 6 blocks (61 % of the paths).",
    ]


def test_effective_paths_by_single_paths_and_by_sums():
    single = synthetic.effective_path()
    names = ("gradient_share", "effective_low", "effective_high")
    sums = single[["path_fraction", *names]].rename({name: f"sum_{name}" for name in names})
    text = "88 % of the gradient passes 2 to 6 blocks (61 % of the paths)"
    (line,) = findings(sums.assign(sum_effective_high=1, sum_effective_low=1))
    assert line == (
        "Effective paths: 4.6 % of the gradient passes 1 block (0.29 % of the paths), "
        "all paths of a length taken together."
    )
    (line,) = findings(single.merge(sums.assign(sum_effective_low=0, sum_effective_high=0)))
    assert line.startswith(f"Effective paths: {text}; with all paths of a length taken together, ")


def test_results_of_one_number_are_described_too():
    one = synthetic.random_deletion().isel(n_deleted=[1])
    assert findings(one)[0] == "Many blocks deleted: the mean error is 20 % with 2 blocks deleted."
    alone = synthetic.reorder().isel(n_swaps=[2])
    assert findings(alone) == ["Blocks swapped: the mean error is 60 % at a mean Kendall's tau of 0.40."]


def test_a_gradient_of_one_length_decays_by_no_factor():
    dataset = synthetic.sampled_path_gradient()
    dead = dataset.where(dataset.path_length == 0, 0.0)
    assert findings(dead) == ["Gradient along one path: only paths through 0 blocks carry any."]
    assert findings(0 * dead) == ["Gradient along one path: no path carries any."]


def test_blocks_without_effect_are_called_so():
    dataset = synthetic.deletion()
    dead = dataset.assign(loss=dataset.error * 0 + 2.0, baseline_loss=2.0, agreement=dataset.error * 0 + 1.0)
    (sentence,) = findings(dead)
    assert sentence.endswith("No block changes any output, as when branches start at zero: is the network trained?")
    (sentence,) = findings(dead.assign(loss=dead.loss + dataset.error))
    assert "No block" not in sentence


def test_sentences_are_of_kinds():
    assert set(SENTENCES) <= set(KINDS)


def test_of_many_numbers_the_ends_and_the_middle_are_said():
    error = np.linspace(0.02, 0.82, 21)
    dataset = xr.Dataset({"error": (("n_deleted", "draw"), np.stack([error, error], 1))}, {"n_deleted": range(1, 22)})
    (sentence,) = findings(dataset)
    start = (
        "Many blocks deleted: the mean error is 2 % with 1 block, 42 % with 11 blocks and 82 % with 21 blocks deleted"
    )
    assert sentence == f"{start}; normalised area under the curve 0.42."
    assert findings(dataset.isel(n_deleted=slice(None, None, -1))) == [sentence]


def test_paths_are_said_to_be_left_where_ten_blocks_are_deleted_or_nearly():
    left = rl.remaining_fraction(54, [1, 5, 9, 20]).to_dataset(name="remaining_fraction")
    # of the paths through k of 54 blocks, those that avoid the 9 deleted ones
    few, many = (np.prod([(54 - 9 - i) / (54 - i) for i in range(k)]) for k in (5, 27))
    assert findings(left) == [
        f"Paths left with 9 blocks deleted: {100 * few:.3g} % of those through 5 blocks and {100 * many:.2g} % of "
        "those through 27 blocks."
    ]


def test_counted_paths_alone_have_no_effective_ones():
    assert findings(rl.path_fraction(12).to_dataset(name="path_fraction")) == []


def test_lengths_left_out_are_not_called_a_deviation():
    dataset = synthetic.path_gradient()
    assert findings(dataset)[0].endswith("all lengths together are the gradient, except for at most 1e-07 of it.")
    (sentence,) = findings(dataset.assign(convergence_delta=0.0))
    assert sentence.endswith("; all lengths together are the gradient.")
    (sentence,) = findings(dataset.isel(path_length=slice(0, 5)))
    assert sentence.endswith("for paths through 0 blocks.")


def test_trainings_are_compared_by_a_test_over_several_only():
    right = [np.arange(100) < n for n in (98, 97, 99)], [np.arange(100) < n for n in (90, 91, 92)]
    (sentence,) = findings(compare(*right, ("whole", "part")))
    assert sentence.startswith("Error rates: whole 2 %, part 9 %; over 3 trainings of each, p = ")
    assert sentence.endswith(" (Welch's t-test).")
    (sentence,) = findings(compare(*([some[0]] for some in right), ("whole", "part")))
    assert sentence == "Error rates: whole 2 %, part 10 %; trained once each."
