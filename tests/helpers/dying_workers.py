"""Lose a loader's process at random moments; run by test_reliability, as what hangs has to be a process of its own.

``python dying_workers.py FOLDER TRIALS`` runs an analysis that writes its checkpoint after each batch, while the
process that loads its images is killed, as the kernel does when memory is short. It prints what was raised each time,
and in the end whether the analysis resumes to what it gives when nothing is killed.
"""

import json
import os
import random
import signal
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ["OMP_NUM_THREADS"] = "1"

import torch
from torch.utils.data import DataLoader, Dataset

import resnet_lesion as rl
from helpers import models
from resnet_lesion.runs import run as run_module

run_module._SECONDS = 0.0
torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL = 0.1  # torch waits as long for each that is dead
torch.set_num_threads(1)


class Images(Dataset):
    """Images whose loading process is killed some time after the fourth of them."""

    def __init__(self, seconds: float | None) -> None:
        self.data, self.seconds = models.data(64), seconds

    def __len__(self) -> int:
        return 64

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        if self.seconds is not None and i == 4:
            threading.Timer(self.seconds, os.kill, (os.getpid(), signal.SIGKILL)).start()
        return self.data[0][i], int(self.data[1][i])


def main() -> None:
    """Lose a process, again and again, and go on."""
    folder, n_trials, draw, model = Path(sys.argv[1]), int(sys.argv[2]), random.Random(0), models.build()
    raised = []

    def analyse(seconds: float | None, trial: int | None) -> object:
        loader = DataLoader(Images(seconds), batch_size=2, num_workers=1, prefetch_factor=40)
        checkpoint = None if trial is None else folder / str(trial)
        return rl.Deletion(model).analyze(loader, checkpoint=checkpoint, show_progress=False)

    expected = analyse(None, None)
    for trial in range(n_trials):
        try:
            analyse(draw.uniform(0, 0.3), trial)
        except Exception as error:
            raised.append(f"{type(error).__name__}: {error}")
    identical = [analyse(None, trial).drop_attrs().identical(expected.drop_attrs()) for trial in range(n_trials)]
    left = [path.name for path in folder.glob("*/.*")]
    print(json.dumps({"raised": raised, "identical": identical, "left": left}))


if __name__ == "__main__":
    main()
