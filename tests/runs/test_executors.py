"""Real executors, with processes of their own, give what one process gives."""

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import pytest
import timm
import torch
import xarray as xr
from helpers import models, slow
from helpers.analyses import ANALYSES, check_merged

import resnet_lesion as rl
from resnet_lesion.runs.executors import over_shards

QUIET = {"show_progress": False}
TESTS = Path(__file__).parents[1]


class Here:
    """The simplest executor: at once, in this process, through pickle as if it were another."""

    def __init__(self):
        self.n_submitted = 0

    def submit(self, fn, /, *args, **kwargs):
        self.n_submitted += 1
        fn, args, kwargs = pickle.loads(pickle.dumps((fn, args, kwargs)))
        future = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


@pytest.mark.parametrize("name", ANALYSES)
def test_an_executor_gives_what_one_process_gives(name):
    here, model, data = Here(), models.build(), models.data(7)
    check_merged(ANALYSES[name](model, data, executor=here, n_shards=3), ANALYSES[name](model, data))
    assert here.n_submitted == 3


def test_one_shard_is_the_whole_run():
    model, data = models.build(), models.data(4)
    result = rl.Deletion(model).analyze(data, executor=Here(), n_shards=1, **QUIET)
    check_merged(result, rl.Deletion(model).analyze(data, **QUIET))


def test_effective_paths_and_studies_too():
    model, data = models.build(), models.data(6)
    options = {"n_draws": 3, "n_bootstrap": 50, **QUIET}
    found = rl.EffectivePath(model).analyze(data, executor=Here(), n_shards=2, **options)
    xr.testing.assert_allclose(found, rl.EffectivePath(model).analyze(data, **options), rtol=1e-10, atol=1e-13)
    options = {"n_deleted": 2, "n_swaps": 1, "n_draws": 2, "n_paths": 2, **QUIET}
    found, expected = rl.study(model, data, executor=Here(), n_shards=2, **options), rl.study(model, data, **options)
    for name, node in expected.children.items():
        check_merged(found[name].to_dataset(), node.to_dataset())


@pytest.mark.parametrize("name", ["resnet18", "inception_resnet_v2", "vit_tiny_patch16_224"])
def test_networks_travel(name):
    with torch.device("meta"):  # what travels is large, and no test of ours
        network = rl.wrap(timm.create_model(name))
    other = pickle.loads(pickle.dumps(rl.Deletion(network))).network
    assert other.layers == network.layers
    assert other.branches[0].exit == network.branches[0].exit


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"n_shards": 3}, "expected an executor for n_shards=3, got none"),
        ({"executor": Here()}, "expected with an executor n_shards=N"),
        ({"executor": Here(), "n_shards": 3, "shard": (0, 3)}, "and no shard"),
        ({"executor": Here(), "n_shards": 0}, "expected n_shards >= 1, got 0"),
    ],
)
def test_what_does_not_go_together(options, words):
    with pytest.raises(ValueError, match=words):
        rl.Deletion(models.build()).analyze(models.data(4), **options, **QUIET)


def test_an_analysis_says_in_its_signature_what_it_takes():
    with pytest.raises(TypeError, match=r"\['executor', 'n_shards', 'show_progress'\] in the signature of .*analyse"):

        @over_shards
        def analyse(data, *, shard=None): ...


def test_a_failure_comes_back_and_ends_the_others(tmp_path):
    with ThreadPoolExecutor(1) as pool:
        futures = []
        submit = pool.submit
        pool.submit = lambda *args, **kwargs: futures.append(submit(*args, **kwargs)) or futures[-1]
        with pytest.raises(OSError, match="cannot read image 4") as raised:
            rl.Deletion(models.build()).analyze(slow.FailingBatches(8, tmp_path), executor=pool, n_shards=4, **QUIET)
    assert raised.value.__notes__ == ["in shard 0 of 4"]
    assert futures[-1].cancelled()


def test_threads_take_turns_with_the_model():
    model, data = models.build(), models.data(12)
    snapshot = models.Snapshot(model)
    with ThreadPoolExecutor(4) as pool:
        found = rl.Deletion(model).analyze(data, n_deleted=[1, 2], executor=pool, n_shards=4, **QUIET)
    check_merged(found, rl.Deletion(model).analyze(data, n_deleted=[1, 2], **QUIET))
    snapshot.check()


def check_spread(tmp_path, executor, n_shards=4, n_processes=2, n=24, **options):
    """Run on the executor, from several processes, and compare."""
    model, batches = models.build(), slow.SlowBatches(n, tmp_path)
    found = rl.Deletion(model).analyze(
        batches, n_deleted=[1, 2], n_draws=2, executor=executor, n_shards=n_shards, **options, **QUIET
    )
    processes = {path.name for path in tmp_path.glob("process-*")}
    assert len(processes) >= n_processes
    assert f"process-{os.getpid()}" not in processes
    check_merged(
        found, rl.Deletion(model).analyze(slow.SlowBatches(n, tmp_path, 0), n_deleted=[1, 2], n_draws=2, **QUIET)
    )


@pytest.mark.sweep
def test_a_process_pool(tmp_path):
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        check_spread(tmp_path, pool)


@pytest.mark.sweep
@pytest.mark.filterwarnings("ignore")  # dask's own
def test_dask_with_a_worker_killed_in_mid_run(tmp_path):
    import distributed  # takes a second

    killed = []

    def kill():
        # a process that is at work
        while not (started := [*tmp_path.glob("process-*")]):
            time.sleep(0.01)
        time.sleep(0.2)
        killed.append(int(started[0].name.removeprefix("process-")))
        os.kill(killed[0], signal.SIGKILL)

    with (
        distributed.LocalCluster(
            n_workers=3, threads_per_worker=1, processes=True, dashboard_address=None, local_directory=str(tmp_path)
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        killer = threading.Thread(target=kill)
        killer.start()
        check_spread(tmp_path, client.get_executor(), n_shards=6, checkpoint=tmp_path / "run")
        killer.join()
        with pytest.raises(ProcessLookupError):
            os.kill(killed[0], 0)
    assert len([*(tmp_path / "run").glob("*.part.nc")]) == 6


@pytest.mark.sweep
@pytest.mark.filterwarnings("ignore")  # submitit's own
def test_submitit(tmp_path, monkeypatch):
    import submitit

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")]))
    executor = submitit.LocalExecutor(folder=tmp_path / "jobs")
    executor.update_parameters(timeout_min=5)
    check_spread(tmp_path, executor, n_shards=2)


@pytest.mark.sweep
def test_torchrun_says_which_shard(tmp_path):
    script = tmp_path / "shard.py"
    script.write_text(
        "import os, sys\n"
        f"sys.path.insert(0, {str(TESTS)!r})\n"
        "import resnet_lesion as rl\n"
        "from helpers import models\n"
        "result = rl.Deletion(models.build()).analyze(models.data(11), shard='env', show_progress=False)\n"
        f"rl.save(result, {str(tmp_path)!r} + '/' + os.environ['RANK'] + '.nc')\n"
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "3", str(script)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert run.returncode == 0, run.stderr
    merged = rl.merge(sorted(tmp_path.glob("?.nc")))
    check_merged(merged, rl.Deletion(models.build()).analyze(models.data(11), **QUIET))
