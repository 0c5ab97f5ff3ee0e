"""One analysis on many processes or machines, through an existing executor: its shards, then merged."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from inspect import Parameter, signature
from typing import Any, ParamSpec, Protocol, TypeVar, cast

from tqdm import tqdm

from resnet_lesion.checks import as_positive
from resnet_lesion.runs.merging import merge
from resnet_lesion.runs.shards import as_shard

_P = ParamSpec("_P")
_R = TypeVar("_R")


class Executor(Protocol):
    """What has ``concurrent.futures``' interface: a process pool, ``dask.distributed``'s, submitit's, any other."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Have a function called elsewhere; what this returns has a ``result`` method that waits for it."""


def over_shards(analyse: Callable[_P, _R]) -> Callable[_P, _R]:
    """Let an analysis that takes a ``shard`` take an ``executor`` and ``n_shards`` too.

    With an executor, the analysis is submitted once for each shard of the images and their results are merged. The
    function and its arguments travel by pickle, so the model's class and its adapter must be importable there.

    Both are in the analysis's own signature, as Python's types have no way to add a keyword to it; what it receives for
    them is always None, and it can ignore them.

    Raises:
        TypeError: If its signature lacks one of the keywords that are used here.
    """
    keywords = {
        name for name, parameter in signature(analyse).parameters.items() if parameter.kind is Parameter.KEYWORD_ONLY
    }
    if missing := {"shard", "executor", "n_shards", "show_progress"} - keywords:
        raise TypeError(f"expected the keywords {sorted(missing)} in the signature of {analyse.__qualname__}.")

    @wraps(analyse)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        options: dict[str, Any] = dict(kwargs)
        executor, n_shards = options.pop("executor", None), options.pop("n_shards", None)
        if executor is None:
            if n_shards is not None:
                raise ValueError(f"expected an executor for n_shards={n_shards}, got none.")
            return analyse(*args, **kwargs)
        if n_shards is None or not as_shard(options.get("shard")).is_whole:
            raise ValueError(
                "expected with an executor n_shards=N, the number of parts to cut the images into, and no shard."
            )
        n, show_progress = as_positive("n_shards", n_shards), options.pop("show_progress", True)
        futures = [
            executor.submit(run, *args, **{**options, "shard": (i, n), "show_progress": False}) for i in range(n)
        ]
        results: list[Any] = []
        try:
            waiting = tqdm(futures, "shards", unit="shard", disable=not show_progress)
            results.extend(future.result() for future in waiting)
        except BaseException as error:
            error.add_note(f"in shard {len(results)} of {n}")
            for future in futures:
                future.cancel()
            raise
        return cast("_R", merge(results) if n > 1 else results[0])

    return run
