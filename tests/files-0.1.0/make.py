"""Makes what is in files.zip, which tests/runs/test_old_files.py opens: what version 0.1.0 wrote.

``python make.py`` in an empty folder, with the package, adapters/ and tests/ of commit f8715f5 on the path; then
``zip -r files.zip .``

- ``subject.safetensors``: the weights and the data, as another machine may draw or round them differently
- ``results/NAME.nc``: the result of each analysis, of all 11 images in batches of 3; ``study.nc``: of a small study
- ``run/``: checkpoints of the same analyses, each stopped after 9 of the images
- ``shards/NAME-I.nc``: the results of two shards
- ``training.pt``: the checkpoint of a training that was stopped in the third of its four epochs
"""

import contextlib
from pathlib import Path

import models
import torch
from safetensors.torch import save_file
from test_run import ANALYSES, Batches, Stop

import resnet_lesion as rl
from resnet_lesion import run as run_module

torch.set_num_threads(1)
run_module._SECONDS = 0.0
QUIET = {"show_progress": False}
model, data = models.build(), models.data(11)
save_file(model.state_dict() | {"inputs": data[0], "targets": data[1]}, "subject.safetensors")

for folder in ("results", "shards"):
    Path(folder).mkdir()
for name, analyse in ANALYSES.items():
    rl.save(analyse(model, Batches(data, 3)), f"results/{name}.nc")
    with contextlib.suppress(Stop):
        analyse(model, Batches(data, 3, 3), checkpoint="run")
    for i in range(2):
        rl.save(analyse(model, data, shard=(i, 2)), f"shards/{name}-{i}.nc")
rl.save(rl.EffectivePath(model).analyze(data, n_draws=4, n_bootstrap=10, **QUIET), "results/effective_path.nc")
rl.save(rl.study(model, data, n_draws=3, n_paths=4, n_gradient_images=4, **QUIET), "study.nc")


class Stopping:
    """Two batches an epoch, until the fifth, at which training stops."""

    n_left = 4

    def __len__(self):
        return 2

    def __iter__(self):
        for start in (0, 5):
            if not self.n_left:
                raise Stop
            self.n_left -= 1
            yield data[0][start : start + 5], data[1][start : start + 5]


with contextlib.suppress(Stop):
    rl.train(models.build(), Stopping(), rl.Recipe(epochs=4, learning_rate=0.01), checkpoint="training.pt", **QUIET)
