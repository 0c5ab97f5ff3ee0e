from helpers import synthetic

from resnet_lesion.reports.findings import findings


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
        "together are the gradient, but for 1e-07 of it at most.",
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
    assert sentence.endswith("No block changes any output, as where branches begin at zero: is the network trained?")
    (sentence,) = findings(dead.assign(loss=dead.loss + dataset.error))
    assert "No block" not in sentence
