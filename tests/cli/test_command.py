import argparse
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers.command import run, start

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
        (("show", "a.nc", "b.nc"), "expected one FILE.nc, got also b.nc"),
        (("demo", "x"), "unrecognized arguments: x"),
        (("merge", "a.nc", "--out", "b.nc", "c.nc"), "unrecognized arguments: c.nc"),
        (("show", ""), "the argument after resnet-lesion show is empty"),
        (("demo", "--out", ""), "the argument after --out is empty"),
        (("demo", "--out="), "the argument --out= is empty"),
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
        (PermissionError(13, "Permission denied", "/root/x"), 2, "Permission denied: '/root/x'"),
        (ModuleNotFoundError("there is no jinja2"), 2, "there is no jinja2"),
        (rl.AdapterError("a block deviates"), 2, "a block deviates"),
        (
            ZeroDivisionError("\x1b]0;title\x07 \u202e"),
            1,
            r"ZeroDivisionError: \x1b]0;title\x07 \u202e (--debug shows where)",
        ),
        (BrokenPipeError(32, "Broken pipe"), 2, "Broken pipe"),  # not that of the output
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


LINUX = pytest.mark.skipif(sys.platform == "win32", reason="Windows has other pipes and interruptions")


@LINUX
@pytest.mark.parametrize("unbuffered", [{}, {"PYTHONUNBUFFERED": "1"}])
@pytest.mark.parametrize("words", [["--print-completion", "bash"], ["show"], ["--version"]])
def test_a_reader_that_has_seen_enough_is_not_complained_of(words, unbuffered, result):
    read, write = os.pipe()
    os.close(read)
    words = [*words, result] if words[0] == "show" else words
    process = start(*words, stdout=write, env=unbuffered)
    os.close(write)
    assert process.communicate()[1] == b""
    # argparse overlooks that its text is not read, where it notices at once
    assert process.returncode == (0 if unbuffered and words == ["--version"] else 141)


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="has no device that is always full")
@pytest.mark.parametrize("words", [["--print-completion", "bash"], ["--version"], ["show"]])
def test_output_that_cannot_be_written_is_said(words, result):
    with open("/dev/full", "w") as full:
        process = start(*words, *([result] if words == ["show"] else []), stdout=full)
    error = process.communicate()[1].decode()
    assert error == "resnet-lesion: the output cannot be written: No space left on device.\n"
    assert process.returncode == 2


@LINUX
@pytest.mark.parametrize(("closed", "code"), [(1, 0), (2, 2)])
def test_a_process_without_an_output_or_an_error_output(closed, code, result, tmp_path):
    file = result if closed == 1 else tmp_path / "none.nc"
    process = start("show", file, preexec_fn=lambda: os.close(closed))
    assert process.communicate() == (b"", b"")
    assert process.returncode == code


WAITING = """
import builtins, sys, time
import_ = builtins.__import__
def slowly(name, *args, **options):
    if name in ("torch", "xarray"):
        print("importing", flush=True)
        import late
    return import_(name, *args, **options)
builtins.__import__ = slowly
from resnet_lesion.cli.command import main
raise SystemExit(main())
"""


@LINUX
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["show", "none.nc"], "interrupted"),
        (
            ["study", "x", "--data", "digits", "--out", "x.nc"],
            "interrupted; nothing is kept. With --run-folder DIR, the same command would resume.",
        ),
        (
            ["study", "x", "--data", "digits", "--out", "x.nc", "--run-folder", "run"],
            "interrupted; the same command resumes from what 'run' holds.",
        ),
        (
            ["train", "x", "--data", "digits", "--out", "mine"],
            "interrupted; the same command resumes from what 'mine' holds.",
        ),
        (
            ["reproduce", "--data", "digits", "--out", "all"],
            "interrupted; the same command resumes from what 'all' holds.",
        ),
    ],
)
def test_an_interruption_during_an_import_ends_quietly_and_says_how_to_continue(words, message, tmp_path):
    # a module that overlooks it, as modules do that try what is there
    (tmp_path / "late.py").write_text(
        "import time\nfor _ in range(600):\n    try:\n        time.sleep(1)\n    except BaseException:\n        pass\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", WAITING, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
    )
    assert process.stdout.readline() == "importing\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate() == ("", f"resnet-lesion: {message}\n")
    assert process.returncode == 130
    assert [path.name for path in tmp_path.iterdir()] == ["late.py"]


@LINUX
def test_only_a_process_of_its_own_is_changed(result, capsys):
    handler, shown = signal.getsignal(signal.SIGINT), warnings.showwarning
    assert run("show", result) == 0
    assert signal.getsignal(signal.SIGINT) is handler
    assert warnings.showwarning is shown
