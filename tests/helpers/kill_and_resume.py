"""Kill runs at random points and start them again; run by test_run, as killing needs processes of its own.

``python kill_and_resume.py FOLDER TRIALS`` prints for each trial how many images had been done when it was killed, and
whether the Dataset in the end is that of an uninterrupted run.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ["OMP_NUM_THREADS"] = "1"

import torch
import xarray as xr

import resnet_lesion as rl
from helpers import models
from resnet_lesion.runs import run as run_module

run_module._SECONDS = 0.0


def analyse(trial: int, folder: Path) -> xr.Dataset:
    """Run one of the analyses, on many small batches."""
    model, (inputs, targets) = models.build(), models.data(16)
    batches = [*zip(inputs.split(2), targets.split(2), strict=True)]
    how = {"checkpoint": folder / "run", "show_progress": False}
    if trial % 3 == 0:
        return rl.Deletion(model).analyze(batches, n_deleted=[1, 2, 3], n_draws=3, by_class=True, **how)
    if trial % 3 == 1:
        return rl.PathGradient(model).analyze(batches, per_sample=True, **how)
    return rl.PathGradient(model).analyze(batches, method="sample", n_draws=3, **how)


def in_child(trial: int, folder: Path, kill_after: float | None) -> float:
    """Run in a process of its own, kill it if it lasts longer, and return how long it lasted."""
    folder.mkdir(exist_ok=True)
    start = time.monotonic()
    child = os.fork()
    if child == 0:
        torch.set_num_threads(1)
        rl.save(analyse(trial, folder), folder / "result.nc")
        os._exit(0)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return time.monotonic() - start


def main() -> None:
    """Kill and resume, again and again."""
    # imported here, so that no child is killed while it imports them
    _ = rl.Deletion, rl.PathGradient, rl.save, rl.open
    folder, n_trials, draw = Path(sys.argv[1]), int(sys.argv[2]), random.Random(3)
    trials, seconds, expected = [], {}, {}
    # so that not every child loads what only a first run loads; without gradients, which torch allows no fork after
    rl.save(analyse(0, folder / "first"), folder / "first.nc")
    for kind in range(3):
        seconds[kind] = in_child(kind, folder / f"whole-{kind}", None)
        expected[kind] = rl.open(folder / f"whole-{kind}" / "result.nc").drop_attrs()
    for trial in range(n_trials):
        own, kind = folder / f"trial-{trial}", trial % 3
        in_child(trial, own, draw.uniform(0, seconds[kind]))
        states = [*(own / "run").glob("*.nc")] if (own / "run").exists() else []
        done = max((json.loads(rl.open(state).attrs["done"])["n_images"] for state in states), default=0)
        (own / "result.nc").unlink(missing_ok=True)
        in_child(trial, own, None)
        found = rl.open(own / "result.nc").drop_attrs()
        trials.append({"done": done, "identical": bool(found.identical(expected[kind]))})
    print(json.dumps(trials))


if __name__ == "__main__":
    main()
