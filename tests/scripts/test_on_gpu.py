"""``scripts/on_gpu.sh`` does everything in order, once, and says whether it failed; its programs are pretended."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts/on_gpu.sh"
# notes how it was called, and says what pytest would
PRETENDED = """#!/bin/sh
echo "$(basename "$0") $*" >>"$CALLS"
case "$*" in "-m pytest "*) echo "$SUMMARY" ;; "-m benchmarks "*) exit "$BENCHMARKS" ;; esac
"""


@pytest.fixture
def on_gpu(tmp_path):
    """Run the script; return its exit status and the programs that it called."""
    if shutil.which("bash") is None:
        pytest.skip("no bash")
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("python", "resnet-lesion"):
        (programs / name).write_text(PRETENDED)
        (programs / name).chmod(0o755)

    def run(summary, *options, benchmarks=0):
        calls = tmp_path / "calls"
        calls.write_text("")
        environment = {
            **os.environ,
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "CALLS": str(calls),
            "SUMMARY": summary,
            "BENCHMARKS": str(benchmarks),
        }
        ended = subprocess.run(["bash", SCRIPT, tmp_path / "out", *options], env=environment, capture_output=True)
        return ended.returncode, calls.read_text().splitlines()

    return run


def test_it_measures_before_it_trains(on_gpu, tmp_path):
    status, (tests, benchmarks, training) = on_gpu("22 passed in 9.0s", "--data", "digits")
    assert status == 0
    assert tests.startswith("python -m pytest ")
    assert tests.endswith(" tests/test_gpu.py")
    assert benchmarks == f"python -m benchmarks run --resume --device cuda --out {tmp_path / 'out/benchmarks'}"
    assert training.startswith("resnet-lesion reproduce ")
    assert training.endswith(" --data digits")


def test_tests_that_passed_are_not_run_again(on_gpu):
    assert [len(on_gpu("===== 20 passed, 2 skipped in 9.0s =====")[1]) for _ in range(2)] == [2, 1]


@pytest.mark.parametrize(
    "summary",
    ["1 failed, 21 passed in 9.0s", "21 passed, 1 error in 9.0s", "22 skipped in 1.0s", "test_gpu.py::test_a PASSED"],
)
def test_what_failed_or_was_stopped_is_run_again_and_fails(on_gpu, summary):
    assert [(status, len(calls)) for status, calls in (on_gpu(summary) for _ in range(2))] == [(1, 2), (1, 2)]


def test_a_failed_measurement_fails_but_ends_nothing(on_gpu):
    status, calls = on_gpu("22 passed in 9.0s", "--data", "digits", benchmarks=1)
    assert (status, len(calls)) == (1, 3)
