import argparse
import ctypes
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest
from helpers.command import run

import resnet_lesion as rl
from resnet_lesion.cli import command

COMMANDS = ("demo", "study", "merge", "show", "plot", "report", "train", "reproduce", "models")
SLOW = ("torch", "timm", "captum", "xarray", "numpy", "matplotlib", "scipy", "resnet_lesion_timm")


def leaving(*words):
    with pytest.raises(SystemExit) as exit_:
        run(*words)
    return exit_.value.code


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((), "the following arguments are required: COMMAND"),
        (("paint",), "invalid choice: 'paint'"),
        (("demo", "--n-darws", "2"), "unrecognized arguments: --n-darws 2. Did you mean '--n-draws'?"),
        (("study", "resnet18"), "the following arguments are required: --out, --data"),
        (("demo", "--n-draws", "0"), "argument --n-draws: expected a whole number >= 1, got '0'"),
        (("demo", "--seed", "x"), "argument --seed: expected a whole number >= 0, got 'x'"),
    ],
)
def test_bad_usage_gives_exit_code_2(args, message, capsys):
    assert leaving(*args) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert error.endswith(" --help shows what it takes.\n")


def test_every_subcommand_is_there():
    (commands,) = (a for a in command.parser()._actions if isinstance(a, argparse._SubParsersAction))
    assert tuple(commands.choices) == COMMANDS


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_an_example(name, capsys):
    assert leaving(name, "--help") == 0
    assert f"\n  resnet-lesion {name} " in capsys.readouterr().out.partition("\nexample")[2]


def test_help_gives_defaults(capsys):
    leaving("study", "--help")
    output = " ".join(capsys.readouterr().out.split())
    assert "seed of everything random (default: 0)" in output
    assert "images in a batch (default: 64)" in output
    assert "None" not in output
    assert "False" not in output
    assert "True" not in output


def test_version(capsys):
    assert leaving("--version") == 0
    assert capsys.readouterr().out == f"resnet-lesion {rl.__version__}\n"


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion(shell, capsys):
    assert leaving("--print-completion", shell) == 0
    script = capsys.readouterr().out
    assert "--modules-per-batch" in script
    assert "report" in script
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=script, text=True, check=True)


def test_nothing_slow_is_imported_for_help_version_completion_and_complaints():
    words = [
        ["--help"],
        *([name, "--help"] for name in COMMANDS),
        ["--version"],
        ["--print-completion", "bash"],
        [],
        ["paint"],
        ["study", "resnet18"],
        ["study", "resnet18", "--shard", "3/3"],
        ["demo", "--n-draws", "0"],
        ["demo", "--n-darws", "2"],
    ]
    program = f"""
import sys
from resnet_lesion.cli.command import main
for words in {words!r}:
    try:
        main(words)
    except SystemExit:
        continue
    raise AssertionError(words)
print(*sys.modules, file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    imported = done.stderr.splitlines()[-1].split()
    assert "resnet_lesion.cli.train" in imported
    assert set(SLOW) & set(imported) == set()


def test_debug_shows_the_traceback(tmp_path):
    with pytest.raises(FileNotFoundError):
        run("show", tmp_path / "none.nc", "--debug")


def raising(error):
    def raise_(*_, **__):
        raise error

    return raise_


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (ZeroDivisionError("something\nodd"), 1, "ZeroDivisionError: something odd (--debug shows where)"),
        (ZeroDivisionError(), 1, "ZeroDivisionError: ZeroDivisionError (--debug shows where)"),
        (ModuleNotFoundError("there is no jinja2"), 2, "there is no jinja2"),
        (rl.AdapterError("a block deviates"), 2, "a block deviates"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_errors_are_one_line_and_an_exit_code(error, code, message, result, monkeypatch, capsys):
    monkeypatch.setattr("resnet_lesion.reports.summary.summarise", raising(error))
    assert run("show", result) == code
    assert capsys.readouterr().err == f"resnet-lesion: {message}\n"


def test_the_notes_on_an_error_are_part_of_the_line(result, monkeypatch, capsys):
    error = ZeroDivisionError("odd")
    error.add_note("first\nnote")
    error.add_note("second")
    monkeypatch.setattr("resnet_lesion.reports.summary.summarise", raising(error))
    assert run("show", result) == 1
    assert capsys.readouterr().err == "resnet-lesion: ZeroDivisionError: odd first note second (--debug shows where)\n"


def test_what_a_loading_process_says_is_one_line(folder, tmp_path, capsys):
    shutil.copytree(folder, tmp_path / "digits")
    next((tmp_path / "digits").rglob("*.png")).write_bytes(b"nothing")
    words = ("--data", tmp_path / "digits", "--workers", 1, "--batch-size", 4, "--out", tmp_path / "out.nc")
    assert run("study", "cifar_preactresnet110", *words) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("resnet-lesion: the image ")
    assert "Traceback" not in error
    assert error.endswith("leave such images out with --skip-unreadable.")


@pytest.mark.skipif(sys.platform != "linux", reason="a setting of glibc")
@pytest.mark.parametrize("variables", [{}, {"MALLOC_TRIM_THRESHOLD_": "131072"}])
def test_a_process_of_its_own_keeps_its_memory(variables, monkeypatch):
    set_ = []
    library = SimpleNamespace(mallopt=lambda parameter, size: set_.append((parameter, size)))
    monkeypatch.setattr(ctypes, "CDLL", lambda _: library)
    for name in command._MALLOPT:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["resnet-lesion", "show", "none.nc"])
    assert command.main() == 2
    assert set_ == ([] if variables else [(-1, 2_000_000_000), (-3, 1_000_000_000)])
    set_.clear()
    assert run("show", "none.nc") == 2  # called by another's program
    assert not set_
    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace())
    assert command.main() == 2
