import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from helpers import models

import resnet_lesion as rl

QUIET = {"show_progress": False}
RESULTS = {
    "evaluate": lambda model, data: rl.evaluate(model, data, [[2, 1, 0, 3, 4, 5]], by_class=True, **QUIET),
    "Deletion, each": lambda model, data: rl.Deletion(model).analyze(data, **QUIET),
    "Deletion, many": lambda model, data: rl.Deletion(model).analyze(data, n_deleted=[1, 2], **QUIET),
    "Reorder": lambda model, data: rl.Reorder(model).analyze(data, n_swaps=[1, 2], n_draws=3, **QUIET),
}


def run(name):
    return RESULTS[name](models.build(), models.data(4))


def small(value=1.5):
    return xr.Dataset({"error": ("layer", [value, 2.5])}, {"layer": ["a", "b"]}, {"title": "small"})


def check_same(found, expected):
    xr.testing.assert_identical(found, expected)
    for name, array in expected.variables.items():
        assert found[name].dtype.kind == array.dtype.kind, name
        if array.dtype.kind not in "UTO":
            assert found[name].dtype == array.dtype, name
    for name, value in expected.attrs.items():
        assert found.attrs[name] == value
        assert isinstance(found.attrs[name], str) == isinstance(value, str), name
    assert all(not array.encoding for array in found.variables.values())
    assert not found.encoding


@pytest.mark.parametrize("name", RESULTS)
def test_a_dataset_comes_back_as_it_was(name, tmp_path):
    result = run(name)
    rl.save(result, tmp_path / "result.nc")
    check_same(rl.open(tmp_path / "result.nc"), result)


def test_a_result_saved_twice_is_the_same(tmp_path):
    result = run("Reorder")
    rl.save(result, tmp_path / "first.nc")
    rl.save(rl.open(tmp_path / "first.nc"), tmp_path / "second.nc")
    check_same(rl.open(tmp_path / "second.nc"), result)


def test_a_tree_comes_back_as_it_was(tmp_path):
    tree = xr.DataTree.from_dict({name.replace(", ", "_"): run(name) for name in RESULTS})
    tree.attrs["title"] = "all of them"
    tree["Reorder/nested"] = xr.DataTree(small())
    rl.save(tree, tmp_path / "tree.nc")
    found = rl.open(tmp_path / "tree.nc")
    xr.testing.assert_identical(found, tree)
    assert [node.path for node in found.subtree] == [node.path for node in tree.subtree]
    for node in tree.subtree:
        check_same(found[node.path].to_dataset(inherit=False), node.to_dataset(inherit=False))


def test_values_of_every_kind(tmp_path):
    result = xr.Dataset(
        {
            "flag": ("x", [True, False, True]),
            "small": ("x", np.array([1, -1, 127], dtype=np.int8)),
            "large": ("x", np.array([2**62, -(2**62), 0])),
            "single": ("x", np.array([1.5, np.nan, np.inf], dtype=np.float32)),
            "double": ("x", [5e-324, -0.0, np.pi]),
            "scalar": ((), 3),
            "word": ("x", ["a", "", "layer1.0 é"]),
            "none": ("y", np.empty(0)),
        },
        {"x": [3, 1, 2]},
        {"text": "a", "empty": "", "number": 3, "real": 0.1, "unit": "é"},
    )
    rl.save(result, tmp_path / "kinds.nc")
    check_same(rl.open(tmp_path / "kinds.nc"), result)


def test_a_path_may_be_a_string(tmp_path):
    rl.save(small(), str(tmp_path / "result.nc"))
    xr.testing.assert_identical(rl.open(str(tmp_path / "result.nc")), small())


def test_an_open_result_does_not_hold_its_file(tmp_path):
    path = tmp_path / "result.nc"
    rl.save(small(), path)
    opened = rl.open(path)
    rl.save(small(7.0), path)
    path.unlink()
    assert opened.error.values.tolist() == [1.5, 2.5]


def test_a_file_is_replaced(tmp_path):
    rl.save(small(), tmp_path / "result.nc")
    rl.save(small(7.0), tmp_path / "result.nc")
    assert float(rl.open(tmp_path / "result.nc").error[0]) == 7
    assert os.listdir(tmp_path) == ["result.nc"]


class Unwritable:
    """What netCDF has no type for."""


@pytest.mark.parametrize("tree", [False, True])
def test_a_write_that_fails_leaves_what_was_there(tree, tmp_path):
    path = tmp_path / "result.nc"
    rl.save(small(), path)
    before = path.read_bytes()
    broken = small().assign(odd=("layer", np.array([Unwritable(), Unwritable()])))
    with pytest.raises((TypeError, ValueError)):
        rl.save(xr.DataTree.from_dict({"a": small(), "b": broken}) if tree else broken, path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["result.nc"]


def test_an_interrupted_write_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "result.nc"
    rl.save(small(), path)

    def interrupt(self, target, **_):
        Path(target).write_bytes(b"half a file")
        raise KeyboardInterrupt

    monkeypatch.setattr(xr.Dataset, "to_netcdf", interrupt)
    with pytest.raises(KeyboardInterrupt):
        rl.save(small(7.0), path)
    assert float(rl.open(path).error[0]) == 1.5
    assert os.listdir(tmp_path) == ["result.nc"]


@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.parametrize(("seconds", "least"), [(1, 5), pytest.param(60, 500, marks=pytest.mark.sweep)])
def test_signals_at_any_moment_of_any_write(seconds, least, tmp_path):
    """Ctrl-C hundreds of times: no later write hangs, no half a file is left, and each file is one that was saved."""
    script = Path(__file__).parents[1] / "helpers" / "interrupt_writes.py"
    command = [sys.executable, str(script), str(tmp_path), str(seconds)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60 + 4 * seconds, check=False)
    assert run.returncode == 0, run.stderr
    n_interrupted, n_written = map(int, run.stdout.split())
    assert n_interrupted >= least
    assert n_written > 0
    assert os.listdir(tmp_path) == ["result.nc"]


@pytest.mark.skipif(os.name == "nt", reason="named pipes")
def test_a_pipe_is_written_to(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(pipe.read_bytes)
        rl.save(small(), pipe)
        (tmp_path / "copy.nc").write_bytes(reading.result())
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    xr.testing.assert_identical(rl.open(tmp_path / "copy.nc"), small())


@pytest.mark.skipif(not Path("/dev/stdout").exists(), reason="/dev/stdout")
def test_standard_output_is_written_to(tmp_path):
    code = "import resnet_lesion as rl, xarray as xr; rl.save(xr.Dataset({'a': 1}), '/dev/stdout')"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    (tmp_path / "out.nc").write_bytes(run.stdout)
    assert int(rl.open(tmp_path / "out.nc").a) == 1


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
@pytest.mark.parametrize("there", [True, False])
def test_a_link_is_followed(there, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    target, link = tmp_path / "elsewhere" / "result.nc", tmp_path / "link.nc"
    link.symlink_to(target)
    if there:
        rl.save(small(), target)
    rl.save(small(7.0), link)
    assert link.is_symlink()
    assert float(rl.open(target).error[0]) == 7
    assert os.listdir(tmp_path / "elsewhere") == ["result.nc"]


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(IsADirectoryError, match="expected a file to write, got the folder"):
        rl.save(small(), tmp_path)


@pytest.mark.skipif(os.name == "nt", reason="there nothing tells whether a process lives")
def test_what_killed_processes_left_is_removed_and_nobody_elses(tmp_path):
    begin = "import sys, time; from pathlib import Path; from resnet_lesion.results.storage import whole_file\n"
    begin += f"with whole_file(Path({str(tmp_path)!r}, sys.argv[1])) as file:\n print(file.name, flush=True)\n"
    begin += " time.sleep(600)"
    writers = [
        subprocess.Popen([sys.executable, "-c", begin, name], stdout=subprocess.PIPE, text=True)
        for name in ("result.nc", "result.nc", "result.nc.nc")
    ]
    names = [writer.stdout.readline().strip() for writer in writers]
    for writer in (writers[0], writers[2]):
        writer.kill()
        writer.wait()
    old, new = tmp_path / ".result.nc.abcd1234.part", tmp_path / ".result.nc.00000000-1.abcd1234.part"
    for file in (old, new):  # version 0.1.0's, long ago, and another machine's, just now
        file.touch()
    os.utime(old, (0, 0))
    rl.save(small(), tmp_path / "result.nc")
    assert set(os.listdir(tmp_path)) == {"result.nc", names[1], names[2], new.name}
    writers[1].kill()
    writers[1].wait()
    for writer in writers:
        writer.stdout.close()


def test_what_a_name_cannot_be_is_no_full_disk(tmp_path):
    with pytest.raises(ValueError, match=r"(?s)(?!.*[Dd]isk).*"):
        rl.save(xr.Dataset({"a/b": 1}), tmp_path / "result.nc")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("correct", 5, "correct is not everywhere from 0 to total"),
        ("correct", -1, "correct is not everywhere from 0 to total"),
        ("agreeing", 5, "agreeing is not everywhere from 0 to total"),
        ("baseline_correct", 5, "baseline_correct is not everywhere from 0 to total"),
        ("correct_by_class", 9, "correct_by_class is not everywhere from 0 to total_by_class"),
        ("correct_by_class", 0, "correct_by_class does not add up to correct"),
        ("total_by_class", 9, "total_by_class does not add up to total"),
    ],
)
@pytest.mark.parametrize("tree", [False, True])
def test_counts_that_cannot_be_are_refused(name, value, words, tree, tmp_path):
    result = run("evaluate")
    assert int(result.correct.sum()) > 0
    result[name][...] = value
    rl.save(xr.DataTree.from_dict({"a": result}) if tree else result, tmp_path / "result.nc")
    with pytest.raises(ValueError, match=rf"expected a netCDF file, got .*result\.nc': {words}"):
        rl.open(tmp_path / "result.nc")


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_a_file_has_the_permissions_of_any_other(tmp_path):
    rl.save(small(), tmp_path / "result.nc")
    (tmp_path / "other").touch()
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("result.nc", "other")]
    assert modes[0] == modes[1]


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.6, 0.9, 0.999])
@pytest.mark.parametrize("tree", [False, True])
def test_a_truncated_file_is_refused(share, tree, tmp_path):
    path = tmp_path / "result.nc"
    result = run("Deletion, many")
    rl.save(xr.DataTree.from_dict({"a": result, "b": result}) if tree else result, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=r"expected a netCDF file, got .*result\.nc"):
        rl.open(path)


@pytest.mark.parametrize("content", [b"", b"no netCDF", b"\x89HDF\r\n\x1a\n" + bytes(200), b"CDF\x01" + bytes(3)])
def test_a_file_of_another_kind_is_refused(content, tmp_path):
    (tmp_path / "other.nc").write_bytes(content)
    with pytest.raises(ValueError, match=r"expected a netCDF file, got .*other\.nc"):
        rl.open(tmp_path / "other.nc")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no file .*missing\.nc"):
        rl.open(tmp_path / "missing.nc")
    with pytest.raises(IsADirectoryError, match="expected a netCDF file, got the folder"):
        rl.open(tmp_path)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"the folder .*missing' does not exist; create it first"):
        rl.save(small(), tmp_path / "missing" / "result.nc")


@pytest.mark.parametrize("result", [None, {"error": 1}, small().error, "result.nc"])
def test_only_results_are_saved(result, tmp_path):
    with pytest.raises(TypeError, match="expected a Dataset or a DataTree, got"):
        rl.save(result, tmp_path / "result.nc")
    assert os.listdir(tmp_path) == []
