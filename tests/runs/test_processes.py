import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from resnet_lesion.runs.processes import in_processes

TESTS = Path(__file__).parents[1]


def answered(argument):
    """Answer, or do what the argument says; in a process that has imported torch, so never at once."""
    if argument == "fail":
        raise ValueError("one failed")
    if argument == "last for ever":
        time.sleep(3600)
    return argument, os.getpid()


def test_results_come_in_order_from_other_processes():
    results = list(in_processes(answered, range(6), 2))
    assert [argument for argument, _ in results] == list(range(6))
    assert os.getpid() not in {process for _, process in results}


@pytest.mark.parametrize("how", ["error", "end of iteration"])
def test_what_is_not_wanted_any_more_is_not_waited_for(how):
    before = multiprocessing.active_children()
    results = in_processes(answered, ["fail" if how == "error" else 0, *["last for ever"] * 4], 2)
    if how == "error":
        with pytest.raises(ValueError, match="one failed"):
            next(results)
    else:
        assert next(results)[0] == 0
        results.close()
    assert multiprocessing.active_children() == before


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has other interruptions")
def test_an_interruption_is_said_once_by_the_process_that_started_the_others():
    program = """
from runs.test_processes import answered
from resnet_lesion.runs.processes import in_processes
if __name__ == "__main__":
    for argument, process in in_processes(answered, [0, *["last for ever"] * 4], 2):
        print(process, flush=True)
"""
    run = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path])},
    )
    started = int(run.stdout.readline())
    os.killpg(run.pid, signal.SIGINT)  # as a terminal does
    _, error = run.communicate()
    assert run.returncode == -signal.SIGINT
    assert error.count("Traceback") == 1
    with pytest.raises(ProcessLookupError):
        os.kill(started, 0)
