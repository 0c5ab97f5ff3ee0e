"""The benchmarks run from end to end, what they compare is right, and what is wrong is not timed."""

import json
from dataclasses import replace

import alternatives
import engine
import gradients
import lesions
import networks
import numpy as np
import pytest
import report
import run
import tables
import timing
import torch
from cases import CASES
from helpers import models, reference, reference_gradient

import resnet_lesion as rl

TINY = networks.Spec(
    "cifar_preactresnet110", pixels=8, images=3, draws=1, timed=4, turns=2, stage_blocks=4
)  # 12 blocks, since up to 10 are deleted


def rows_for(network):
    """Each block deleted alone, two subsets, and two neighbours swapped."""
    n = len(network)
    rows = [[*range(i), -1, *range(i + 1, n)] for i in range(n)]
    first = next(i for i in range(n) if not network.is_downsampling[i : i + 2].any())
    swapped = [*range(first), first + 1, first, *range(first + 2, n)]
    return np.array(rows), np.array([[-1] * n, [i if i % 2 else -1 for i in range(n)]]), np.array([swapped])


@pytest.mark.parametrize("case", ["resnet basic", "resnet bottleneck se, avg_down, blur", "resnetv2 basic"])
def test_alternatives_equal_a_naive_loop(case):
    model, data = models.build(case), models.data(3, case)
    network = rl.wrap(model)
    each, subsets, swaps = rows_for(network)
    before = models.Snapshot(model)
    for loop, rows in [
        (alternatives.hook_loop, np.vstack([each, subsets])),
        (alternatives.replaced_blocks, np.vstack([each, subsets, swaps])),
        (alternatives.captum_layers, each),
        (alternatives.captum_features, np.vstack([each, subsets])),
    ]:
        logits = reference.logits(model, models.CASES[case], rows, data[0])
        expected = torch.stack([alternatives.scores(of_row, data[1]) for of_row in logits])
        torch.testing.assert_close(loop(network, rows, *data), expected, rtol=1e-9, atol=1e-9)
    before.check()


def test_stacked_lesions_of_captum_are_the_same():
    network, data = rl.wrap(models.build("resnetv2 basic")), models.data(3, "resnetv2 basic")
    rows = rows_for(network)[0]
    one, several = (alternatives.captum_features(network, rows, *data, perturbations_per_eval=k) for k in (1, 4))
    torch.testing.assert_close(one, several, rtol=1e-9, atol=1e-9)


def test_the_lead_is_positive_where_the_class_is_right():
    logits, targets = torch.tensor([[1.0, 3.0, 2.0], [1.0, 3.0, 2.0]]), torch.tensor([1, 2])
    assert alternatives.scores(logits, targets)[:, 0].tolist() == [1, -1]


def test_routed_loop_equals_paths_written_out_by_hand():
    model = reference_gradient.build("pre-activation")
    inputs, targets = models.images(3, (3, 8, 8)), models.labels(3)
    paths = np.array([[1, 0] * 4, [0] * 8, [1] * 8])
    objective = reference_gradient.cross_entropy(targets)
    expected = [
        reference_gradient.path_gradient(model, inputs, objective, path).flatten(1).norm(dim=1).mean() for path in paths
    ]
    found = alternatives.routed_loop(rl.wrap(model), paths, inputs, targets)
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-9, atol=0)


def test_streams_are_counted_as_the_reference_counts_them():
    rows = np.array([[0, 1, 2], [-1, 1, 2], [0, -1, 2], [0, 2, 1]])
    levels = engine.levels(rows)
    assert levels == [{0: 1, -1: 1}, {1: 2, -1: 1, 2: 1}, {2: 3, 1: 1}]
    assert engine.evaluations(levels) == reference.block_evaluations(rows.tolist())


def test_bare_computations_are_those_of_the_engine():
    subject = networks.Subject(TINY, "cpu")
    analyze = lesions.analysis(subject, "deletions")
    rows = np.vstack([np.arange(12), lesions.rows_of(analyze(subject.network))])
    bare = engine.bare_computations(subject, engine.levels(rows), engine.batch_sizes(subject, analyze))
    assert calls_of_blocks(subject, bare) == calls_of_blocks(subject, lambda: analyze(subject.network))


def calls_of_blocks(subject, compute):
    """Note which convolutions run on how many images, but for the first pass with one image."""
    calls = []
    modules = {module: name for name, module in subject.network.model.named_modules() if "conv" in name}
    handles = [m.register_forward_hook(lambda m, args, _: calls.append((modules[m], len(args[0])))) for m in modules]
    with torch.no_grad():
        compute()
    for handle in handles:
        handle.remove()
    return sorted(call for call in calls if call[1] > 1)


@pytest.mark.parametrize("spec", [TINY, replace(TINY, model="resnet50", pixels=32, stage_blocks=None)])
def test_every_branch_is_alive(spec):
    subject = networks.Subject(replace(spec, images=6), "cpu")
    result = rl.Deletion(subject.network).analyze(subject.data, show_progress=False)
    assert float(result.baseline_error) == 0
    assert len(subject.targets.unique()) > 1
    # every lesion costs more than the check would overlook
    assert float(abs(result.loss - result.baseline_loss).min()) > 10 * lesions.LOSS_TOLERANCE
    assert len(np.unique(result.loss)) == len(subject.network)


@pytest.fixture
def tiny(monkeypatch):
    """Let every case be measured on a tiny network."""
    monkeypatch.setattr(run, "CASES", {name: replace(case, specs={"quick": (TINY,)}) for name, case in CASES.items()})


def test_all_cases_from_end_to_end(tiny, tmp_path):
    assert run.main(["--quick", "--device", "cpu", "--out", str(tmp_path)]) == 0
    found = report.read(tmp_path, "cpu")
    assert found.keys() == CASES.keys()
    for name, case in found.items():
        assert case["complete"]
        assert case["machine"]["threads"] == 1
        (entry,) = case["entries"]
        assert entry["n_blocks"] == 12
        for contender in entry["contenders"].values():
            assert len(contender["seconds"]) == 2
            assert contender["median_seconds"] == pytest.approx(sum(contender["seconds"]) / 2)
        if name.startswith(("random", "re")):
            everybody = {
                lesions.HOOKS,
                lesions.REPLACED,
                lesions.LAYERS,
                lesions.FEATURES,
                lesions.ACCELERATED,
                timing.OURS,
            }
            assert entry["contenders"].keys() | entry["missing"].keys() == everybody
            assert not entry["contenders"].keys() & entry["missing"].keys()
    assert found["engine-single"]["entries"][0]["block_evaluations"] == 12 * 13 / 2 - 1
    assert [len(found[name]["targets"]) for name in ("single-deletion", "engine-single", "reorderings")] == [1, 1, 0]
    assert (tmp_path / "benchmarks-cpu.png").stat().st_size > 10_000
    assert "| reorderings | pre-activation CIFAR network | 3 |" in tables.text(tmp_path)
    assert str(tmp_path.parent) not in "".join(path.read_text() for path in tmp_path.glob("*.json"))


def test_a_wrong_alternative_is_not_timed(tiny, tmp_path, monkeypatch, capsys):
    right = alternatives.hook_loop

    def wrong(network, rows, *data):
        return right(network, np.vstack([rows[:-1], np.arange(rows.shape[1])]), *data)

    monkeypatch.setattr(alternatives, "hook_loop", wrong)
    assert run.main(["--quick", "--device", "cpu", "--only", "single-deletion", "reorderings", "--out", str(tmp_path)])
    failed = json.loads((tmp_path / "single-deletion-cpu.json").read_text())
    assert not failed["complete"]
    assert failed["targets"] == []
    (entry,) = failed["entries"]
    assert "contenders" not in entry
    assert "expected 'hook loop' to find what resnet-lesion finds, but they differ in 1 of 4" in entry["failed"]
    assert "first in number 11: resnet-lesion " in entry["failed"]
    assert json.loads((tmp_path / "reorderings-cpu.json").read_text())["complete"]
    assert "1 measurements failed" in capsys.readouterr().err


@pytest.mark.parametrize("change", [lambda lead, loss: (-lead, loss), lambda lead, loss: (lead, loss + 0.1)])
def test_wrong_counts_and_wrong_losses_are_told_apart(change):
    subject = networks.Subject(TINY, "cpu")
    result = lesions.analysis(subject, "single")(subject.network)
    found = alternatives.hook_loop(subject.network, lesions.rows_of(result), *subject.data)
    chosen = range(12)
    lesions.check("loop", result, chosen, found)
    with pytest.raises(lesions.WrongResultError, match="differ in 12 of 12 lesions"):
        lesions.check("loop", result, chosen, torch.stack(change(*found.unbind(2)), 2))


def test_wrong_norms_are_found():
    gradients.check("loop", np.array([1.0, 2.0]), np.array([1.0, 2.001]))
    with pytest.raises(lesions.WrongResultError, match=r"got a relative deviation of 0\.5"):
        gradients.check("loop", np.array([1.0, 3.0]), np.array([1.0, 2.0]))
    with pytest.raises(lesions.WrongResultError, match="relative deviation of nan"):
        gradients.check("loop", np.array([np.nan]), np.array([1.0]))


def test_lesions_to_time_are_spread_evenly():
    assert lesions.spread(10, 4).tolist() == [0, 3, 6, 9]
    assert lesions.spread(3, 4).tolist() == lesions.spread(3, None).tolist() == [0, 1, 2]


def test_ratios_are_medians_of_turns_for_the_same_work():
    seconds = {timing.OURS: [1.0, 2.0, 4.0], "loop": [1.0, 1.0, 1.0]}
    found = timing.compared(seconds, {timing.OURS: 10, "loop": 2}, "lesions")
    assert found["loop"]["times_as_long"] == 0.5 * 10 / 2
    assert found[timing.OURS]["times_as_long"] == 1
    assert found["loop"]["seconds_for_one"] == 0.5


def test_every_other_turn_goes_the_other_way_round():
    ran = []
    contenders = {name: lambda name=name: ran.append(name) for name in "abc"}
    seconds = timing.side_by_side(contenders, turns=3)
    assert "".join(ran) == "abccbaabc"
    assert {name: len(values) for name, values in seconds.items()} == {"a": 3, "b": 3, "c": 3}


def test_quartiles_are_those_of_the_turns():
    turns = {timing.OURS: [1.0, 4.0, 2.0, 3.0, 5.0], engine.BARE: [1.0] * 5}
    entry = {"contenders": {name: {"seconds": values, engine.UNIT: 7} for name, values in turns.items()}}
    low, high = np.quantile([0, 300, 100, 200, 400], [0.25, 0.75])
    assert tables.quartiles(entry) == f"{low:.1f} to {high:.1f}"


def test_targets_are_met_or_not():
    def entry(ours, accelerated, **more):
        seconds = {timing.OURS: [ours], lesions.ACCELERATED: [accelerated], lesions.HOOKS: [6.0]}
        units = dict.fromkeys(seconds, 1)
        return {"model": "cifar", "contenders": timing.compared(seconds, units, "lesions"), **more}

    def met(case, device, one):
        return [(target["figure"], target["met"]) for target in report.targets(case, device, [one])]

    plain, fast = entry(3.0, 2.0), entry(3.0, 2.0, accelerated_counts_that_differ=0)
    assert met("single-deletion", "cpu", plain) == [(2, False)]
    assert met("single-deletion", "cpu", fast) == [(3, True)]
    assert met("single-deletion", "cpu", entry(3.0, 2.0, accelerated_counts_that_differ=1)) == [(2, False)]
    assert met("single-deletion", "cuda", fast) == [(3, False)]
    assert met("single-deletion", "cuda", fast | {"model": "resnet50"}) == []
    assert met("engine-single", "cuda", fast | {"overhead": 0.11}) == [(11, False)]
    assert met("single-deletion", "cpu", {"model": "cifar", "failed": "out of memory"}) == []


def test_what_is_wrong_with_the_results_is_said(tmp_path):
    def about(load, n_entries):
        one = report.Report(tmp_path / "training-cpu.json", "training", "", "cpu", n_entries)
        one.add({"model": "resnet50"})
        case = json.loads(one.path.read_text())
        case["entries"][0]["load_average_after"] = load
        return tables.about("cpu", dict.fromkeys(CASES, case))

    assert about(1.5, 1).endswith(".")
    assert "**" not in about(1.5, 1)
    assert "**Preliminary**: the machine was busy with other work, its load average up to 2.5." in about(2.5, 1)
    assert "**Not complete**: single-deletion, " in about(0, 2)
    cases = report.read(tmp_path, "cpu")
    other = cases["training"] | {"machine": cases["training"]["machine"] | {"threads": 64}}
    said = tables.about("cpu", cases | {"reorderings": other})
    assert "**Mixed**" in said
    assert "**Not measured**: single-deletion, random-deletions, sampled-paths, " in said


def test_the_tables_are_those_of_the_results():
    assert tables.written() == tables.text(report.FOLDER)


@pytest.mark.sweep
def test_the_quick_run(tmp_path):
    assert run.main(["--quick", "--out", str(tmp_path)]) == 0
