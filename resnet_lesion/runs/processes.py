"""A function on many things, in processes of our own that end with what they were started for."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

_T = TypeVar("_T")
_R = TypeVar("_R")


def in_processes(function: Callable[[_T], _R], arguments: Iterable[_T], n_processes: int) -> Iterator[_R]:
    """Call a function in several processes, of one thread each.

    What is not wanted any more is not waited for: an interruption, an error or the end of iteration ends the processes
    at once.

    Args:
        function: What to call; it, its arguments and its results travel by pickle.
        arguments: What to call it with.
        n_processes: How many processes.

    Yields:
        Its results in the order of the arguments, each as soon as it is known.
    """
    # fork would copy the locks of torch's threads, held or not
    context = multiprocessing.get_context("spawn")
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(n_processes, context, initializer=torch.set_num_threads, initargs=(1,))
    try:
        with _held_interruptions():
            results = pool.map(function, arguments)
        yield from results
    except BaseException:
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _held_interruptions() -> Iterator[None]:
    """Hold Ctrl-C back meanwhile, and for good in processes that are started: they end with this one, and say nothing.

    A terminal sends it to all of them, and each would write a traceback.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
