"""Programs are started in processes of their own, and their processor time is taken."""

import pytest

from benchmarks import startup
from benchmarks.cases import CASES

SPEC = CASES["start-up"].specs["quick"][0]


def program(code):
    return ("-c", code)


def test_programs_that_work_take_processor_time(monkeypatch):
    busy = "import time\nwhile time.process_time() < 0.5: pass"
    idle = "import time; time.sleep(0.5)"
    programs = {startup.TORCH: program(busy), startup.PACKAGE: program(idle)}
    monkeypatch.setattr(startup, "PROGRAMS", programs)
    contenders = startup.measure(SPEC, "cpu")["contenders"]
    assert contenders.keys() == programs.keys()
    assert contenders[startup.TORCH]["median_seconds"] >= 0.5
    assert contenders[startup.PACKAGE]["times_as_long"] < 1


def test_a_command_that_a_version_lacks_is_missing(monkeypatch):
    programs = {startup.TORCH: program("pass"), "resnet-lesion --help": program("raise SystemExit('no such option')")}
    monkeypatch.setattr(startup, "PROGRAMS", programs)
    found = startup.measure(SPEC, "cpu")
    assert found["contenders"].keys() == {startup.TORCH}
    assert found["missing"]["resnet-lesion --help"].endswith("to end without an error, got: no such option")
    monkeypatch.setattr(startup, "PROGRAMS", {startup.TORCH: program("1 / 0")})
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        startup.measure(SPEC, "cpu")


def test_the_commands_are_words_after_the_name():
    assert startup.COMMANDS["resnet-lesion show --help"][-2:] == ("show", "--help")
    assert startup.PROGRAMS[startup.TORCH] == ("-c", "import torch")
