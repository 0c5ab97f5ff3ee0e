"""Starting up: the processor time that each program takes, in a process of its own, against ``import torch``."""

from __future__ import annotations

import subprocess
import sys
from functools import partial

from .networks import Spec
from .timing import compared, side_by_side

TORCH, PACKAGE = "import torch", "import resnet_lesion"
FIRST_USE = "from resnet_lesion import Deletion"  # what was put off
_COMMAND = "from resnet_lesion.cli.command import main; raise SystemExit(main())"
COMMANDS = {
    f"resnet-lesion {words}": ("-c", _COMMAND, *words.split())
    for words in ("--help", "show --help", "--version", "--print-completion bash")
}
PROGRAMS = {name: ("-c", name) for name in (TORCH, PACKAGE, FIRST_USE)} | COMMANDS
"""Python's arguments, by name of the program."""


def measure(spec: Spec, device: str) -> dict[str, object]:
    """Start each program once in every turn; no network and no device are involved."""
    contenders, missing = {}, {}
    for name, arguments in PROGRAMS.items():
        try:
            start(*arguments)  # the first start compiles to bytecode and reads from the disk
        except RuntimeError as error:
            if name not in COMMANDS:
                raise
            missing[name] = str(error)  # an older version may lack an option
        else:
            contenders[name] = partial(start, *arguments)
    seconds = side_by_side(contenders, spec.turns, processor_time_of_children)
    return {
        "model": spec.model,
        "contenders": compared(seconds, dict.fromkeys(contenders, 1), "starts", reference=TORCH),
        "missing": missing,
    }


def start(*arguments: str) -> None:
    """Run Python to its end.

    Raises:
        RuntimeError: If it fails.
    """
    ended = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
    if ended.returncode:
        said = ended.stderr.strip().rpartition("\n")[2]
        raise RuntimeError(f"expected python {' '.join(arguments)} to end without an error, got: {said}")


def processor_time_of_children() -> float:
    """Return the seconds of processor time of all processes that this one started and that have ended."""
    import resource  # not on Windows

    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
