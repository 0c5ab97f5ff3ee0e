"""The cases run from end to end, and what is wrong is not timed."""

import json
from dataclasses import replace

import numpy as np
import pytest

from benchmarks import alternatives, lesions, report, run, startup, tables, timing
from benchmarks.__main__ import main
from benchmarks.cases import CASES
from benchmarks.proof import ONE_ROW, PROOF, SINGLE


@pytest.fixture
def tiny_cases(tiny, monkeypatch):
    """Let every case be measured on a tiny network, and programs do nothing."""
    monkeypatch.setattr(run, "CASES", {name: replace(case, specs={"quick": (tiny,)}) for name, case in CASES.items()})
    monkeypatch.setattr(startup, "PROGRAMS", dict.fromkeys(startup.PROGRAMS, ("-c", "pass")))


def quick(folder, *words):
    return main(["run", "--quick", "--device", "cpu", "--out", str(folder), *words])


def test_all_cases_from_end_to_end(tiny_cases, tmp_path):
    assert quick(tmp_path) == 0
    found = report.read(tmp_path, "cpu")
    assert found.keys() == CASES.keys()
    for name, case in found.items():
        assert case["complete"]
        assert case["machine"]["threads"] == 1
        (entry,) = case["entries"]
        assert name == "start-up" or entry["n_blocks"] == 12
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
    (proof,) = found["proof"]["entries"]
    assert {name: of["images"] for name, of in proof["contenders"].items()} == {PROOF: 3, SINGLE: 3, ONE_ROW: 3}
    n_targets = {"single-deletion": 1, "proof": 2, "engine-single": 1, "reorderings": 0, "start-up": 5}
    assert {name: len(found[name]["targets"]) for name in n_targets} == n_targets
    assert (tmp_path / "benchmarks-cpu.png").stat().st_size > 10_000
    assert "| `resnet-lesion --version` | 0." in tables.text(tmp_path)
    assert "| reorderings | pre-activation CIFAR network | 3 |" in tables.text(tmp_path)
    assert str(tmp_path.parent) not in "".join(path.read_text() for path in tmp_path.glob("*.json"))


def test_a_wrong_alternative_is_not_timed(tiny_cases, tmp_path, monkeypatch, capsys):
    right = alternatives.hook_loop

    def wrong(network, rows, *data):
        return right(network, np.vstack([rows[:-1], np.arange(rows.shape[1])]), *data)

    monkeypatch.setattr(alternatives, "hook_loop", wrong)
    assert quick(tmp_path, "--only", "single-deletion", "reorderings")
    failed = json.loads((tmp_path / "single-deletion-cpu.json").read_text())
    assert not failed["complete"]
    assert failed["targets"] == []
    (entry,) = failed["entries"]
    assert "contenders" not in entry
    assert "expected 'hook loop' to find what resnet-lesion finds, but they differ in 1 of 4" in entry["failed"]
    assert "first in number 11: resnet-lesion " in entry["failed"]
    assert json.loads((tmp_path / "reorderings-cpu.json").read_text())["complete"]
    assert "1 measurements failed" in capsys.readouterr().err


def test_what_is_complete_is_not_measured_again(tmp_path, monkeypatch):
    for name, complete in {"training": True, "reorderings": False}.items():
        (tmp_path / f"{name}-cpu.json").write_text(json.dumps({"complete": complete}))
    ran = []
    monkeypatch.setattr(run, "run", lambda name, *_: ran.append(name) or 0)
    monkeypatch.setattr(run.figure, "write", lambda *_: None)
    words = ["--only", "training", "reorderings", "start-up"]
    assert quick(tmp_path, *words, "--resume") == quick(tmp_path, *words) == 0
    assert ran == ["reorderings", "start-up", "training", "reorderings", "start-up"]


@pytest.mark.sweep
def test_the_quick_run(tmp_path):
    assert main(["run", "--quick", "--out", str(tmp_path)]) == 0
