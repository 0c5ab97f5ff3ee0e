"""What goes wrong on long runs: full disks, many batches, and anything at any time."""

import gc
import json
import os
import re
import stat
import subprocess
import sys
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import xarray as xr
from helpers import models
from helpers.analyses import ANALYSES, Batches, Stop, check_identical, check_merged

import resnet_lesion as rl
from resnet_lesion.runs import run as run_module

QUIET = {"show_progress": False}


@pytest.fixture
def disk():
    """Give what fills the disk: a limit on a file's size makes writing fail as a full disk does, in netCDF itself."""
    resource = pytest.importorskip("resource", reason="limits the size of files as only Unix can")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(n_bytes):
        resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))

    yield SimpleNamespace(fill=lambda: limit(2_000), empty=lambda: limit(soft))
    limit(soft)


def test_a_full_disk_loses_nothing(tmp_path, always_saved, disk):
    noise = xr.Dataset({"a": ("x", np.random.default_rng(0).random(50_000))})
    rl.save(noise.isel(x=[0]), tmp_path / "result.nc")
    model, data = models.build(), models.data(8)
    parts = [(data[0][a:b], data[1][a:b]) for a, b in ((0, 2), (2, 4), (4, 8))]
    expected = rl.Deletion(model).analyze(parts, **QUIET)

    def filling():
        yield from parts[:2]
        disk.fill()
        yield parts[2]

    with pytest.raises(OSError, match=r"cannot be written: .*Is the disk full\?"):
        rl.Deletion(model).analyze(filling(), checkpoint=tmp_path / "run", **QUIET)
    with pytest.raises(OSError, match=r"cannot be written: .*Is the disk full\?"):
        rl.save(noise, tmp_path / "result.nc")
    assert rl.open(tmp_path / "result.nc").sizes == {"x": 1}
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["deletion.part.nc"]
    # netCDF leaves the file open, but nothing in it
    opened = [os.stat(f"/dev/fd/{name}") for name in os.listdir("/dev/fd") if os.path.exists(f"/dev/fd/{name}")]
    assert sum(file.st_size for file in opened if stat.S_ISREG(file.st_mode) and not file.st_nlink) == 0
    disk.empty()
    check_identical(rl.Deletion(model).analyze(parts, checkpoint=tmp_path / "run", **QUIET), expected)


@pytest.mark.parametrize(
    "name",
    [
        "random_deletion",
        pytest.param("path_gradient", marks=pytest.mark.sweep),
        pytest.param("sampled_path_gradient", marks=pytest.mark.sweep),
    ],
)
def test_memory_is_flat_over_a_thousand_batches(name, tmp_path, monkeypatch):
    monkeypatch.setattr(run_module, "_SECONDS", 0.05)  # with checkpoints on the way
    model, (inputs, targets) = models.build(), models.data(2)
    seen = {}

    class Thousand:
        def __iter__(self):
            for i in range(1000):
                if i in (300, 999):
                    gc.collect()
                    tensors = sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())
                    seen[i] = tracemalloc.get_traced_memory()[0], tensors
                yield inputs, targets

    analyse = {
        "random_deletion": lambda: rl.Deletion(model).analyze(
            Thousand(), n_deleted=2, n_draws=2, checkpoint=tmp_path, **QUIET
        ),
        "path_gradient": lambda: rl.PathGradient(model).analyze(Thousand(), checkpoint=tmp_path, **QUIET),
        "sampled_path_gradient": lambda: rl.PathGradient(model).analyze(
            Thousand(), method="sample", n_draws=1, checkpoint=tmp_path, **QUIET
        ),
    }[name]
    tracemalloc.start()
    try:
        assert int(analyse().total) == 2000
    finally:
        tracemalloc.stop()
    (early, early_tensors), (late, late_tensors) = seen[300], seen[999]
    assert late_tensors == early_tensors
    assert late - early < 50_000, "bytes held by Python, over 700 batches"


@pytest.mark.parametrize("trials", [2, pytest.param(60, marks=pytest.mark.sweep)])
def test_a_loading_process_that_dies_is_named_and_nothing_hangs(trials, tmp_path):
    script = Path(__file__).parents[1] / "helpers" / "dying_workers.py"
    command = [sys.executable, str(script), str(tmp_path), str(trials)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120 + 10 * trials, check=False)
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    assert len(found["raised"]) >= trials // 2, "most should be killed before they have loaded all"
    for message in found["raised"]:
        assert re.match(r"RuntimeError: DataLoader worker \(pid(\(s\))? \d+\)", message)
    assert found["identical"] == [True] * trials
    assert found["left"] == []


@pytest.mark.sweep
def test_soak(tmp_path, monkeypatch):
    """Hundreds of runs of all kinds, stopped anywhere, resumed, sharded: the same results and an untouched model."""
    random = np.random.default_rng(0)
    model, data = models.build(), models.data(13)
    snapshot = models.Snapshot(model)
    expected = {name: analyse(model, Batches(data, 2)) for name, analyse in ANALYSES.items()}
    for i in range(300):
        name = random.choice([*ANALYSES])
        n = int(random.integers(1, 5))
        monkeypatch.setattr(run_module, "_SECONDS", float(random.choice([0.0, 0.01, 10.0])))
        results = []
        for shard in random.permutation(n):
            how = {"checkpoint": tmp_path / str(i), "shard": (int(shard), n)}
            while random.random() < 0.5:
                with pytest.raises(Stop):
                    ANALYSES[name](model, Batches(data, 2, stop_after=int(random.integers(7))), **how)
            results.append(ANALYSES[name](model, Batches(data, 2), **how))
        if n == 1:
            check_identical(results[0], expected[name])
        else:
            check_merged(rl.merge(results), expected[name])
        snapshot.check()
