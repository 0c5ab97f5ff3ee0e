"""Interrupt writes at random moments; run by test_storage, as signals need a process of their own.

``python interrupt_writes.py FOLDER SECONDS`` writes and opens one file again and again for so long, while another
thread sends Ctrl-C, and prints how often that interrupted it and how often it did not.
"""

import os
import random
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np
import xarray as xr

import resnet_lesion as rl


def main() -> None:
    """Write, be interrupted, and write again."""
    path, seconds, draw = Path(sys.argv[1]) / "result.nc", float(sys.argv[2]), random.Random(0)
    results = [xr.Dataset({"a": ("x", np.full(1000, i)), "b": ("y", ["b"] * 50), "c": i}) for i in range(2)]
    rl.save(results[0], path)
    n_interrupted, n_written, stop = 0, 0, threading.Event()

    def interrupt() -> None:
        while not stop.is_set():
            time.sleep(draw.uniform(0, 0.05))
            os.kill(os.getpid(), signal.SIGINT)

    sender, end = threading.Thread(target=interrupt), time.monotonic() + seconds
    sender.start()
    while time.monotonic() < end:
        try:
            rl.save(results[n_written % 2], path)
            assert any(rl.open(path).identical(result) for result in results)
            n_written += 1
        except KeyboardInterrupt:
            n_interrupted += 1
    stop.set()
    while sender.is_alive():
        try:
            sender.join()
        except KeyboardInterrupt:
            n_interrupted += 1
    rl.save(results[1], path)
    assert rl.open(path).identical(results[1])
    print(n_interrupted, n_written)


if __name__ == "__main__":
    main()
