"""The tables say what the results say, and what is wrong with them."""

import json

import numpy as np

from benchmarks import engine, report, startup, tables, timing
from benchmarks.cases import CASES


def test_overheads_and_their_quartiles_are_those_of_the_turns():
    turns = {timing.OURS: [1.0, 4.0, 2.0, 3.0, 5.0], engine.BARE: [1.0] * 5}
    entry = {"contenders": {name: {"seconds": values, engine.UNIT: 7} for name, values in turns.items()}}
    low, high = np.quantile([0, 300, 100, 200, 400], [0.25, 0.75])
    assert tables.overheads(entry) == [0, 300, 100, 200, 400]
    assert tables.quartiles(tables.overheads(entry), 1) == f"{low:.1f} to {high:.1f}"
    assert tables.quartiles([1.234], 2) == "1.23 to 1.23"


def test_starts_are_set_beside_importing_torch():
    seconds = {startup.TORCH: [1.0, 2.0, 4.0], startup.PACKAGE: [3.0, 4.0, 4.0]}
    contenders = timing.compared(seconds, dict.fromkeys(seconds, 1), "starts", reference=startup.TORCH)
    missing = {"resnet-lesion --version": "got: no such option"}
    case = {"entries": [{"model": "no network", "contenders": contenders, "missing": missing}]}
    assert tables.startup({"start-up": case}).splitlines()[2:] == [
        "| `import torch` | 2.00 s | 1.00 (1.00 to 1.00) |",
        "| `import resnet_lesion` | 4.00 s | 2.00 (1.50 to 2.50) |",
        "| `resnet-lesion --version` | ends with an error |  |",
    ]


def test_what_is_wrong_with_the_results_is_said(tmp_path):
    def about(load, n_entries):
        one = report.Report(tmp_path / "training-cpu.json", "training", "", "cpu", n_entries)
        one.add({"model": "resnet50"})
        case = json.loads(one.path.read_text())
        case["entries"][0]["load_average_after"] = load
        return tables.about("cpu", dict.fromkeys(CASES, case))

    assert about(1.5, 1).endswith(".")
    assert "**" not in about(1.5, 1)
    busy = about(2.5, 1)
    assert "**Preliminary**: the machine was busy with other work during single-deletion, random-deletions, " in busy
    assert "start-up, its load average up to 2.5." in busy
    assert "**Not complete**: single-deletion, " in about(0, 2)
    cases = report.read(tmp_path, "cpu")
    other = cases["training"] | {"machine": cases["training"]["machine"] | {"threads": 64}}
    said = tables.about("cpu", cases | {"reorderings": other})
    assert "**Mixed**" in said
    assert "**Not measured**: single-deletion, random-deletions, sampled-paths, " in said


def test_the_tables_are_those_of_the_results():
    assert tables.written() == tables.text(report.FOLDER)
