"""Things that other processes must be able to import: data that takes its time, and data that fails there."""

import os
import time

from helpers import models


class SlowBatches:
    """Batches of two that take a while, and leave a trace of who asked for them."""

    def __init__(self, n, folder, seconds=0.05):
        self.n, self.folder, self.seconds = n, folder, seconds

    def __iter__(self):
        inputs, targets = models.data(self.n)
        for batch in zip(inputs.split(2), targets.split(2), strict=True):
            (self.folder / f"process-{os.getpid()}").touch()
            time.sleep(self.seconds)
            yield batch


class FailingBatches(SlowBatches):
    """Batches of which one cannot be read."""

    def __iter__(self):
        yield from [*super().__iter__()][:2]
        raise OSError("cannot read image 4")
