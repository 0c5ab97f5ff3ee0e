"""The command, in this process or in one of its own."""

import os
import subprocess
import sys

from resnet_lesion.cli.command import main

PROGRAM = (sys.executable, "-c", "from resnet_lesion.cli.command import main; raise SystemExit(main())")


def run(*words):
    """Run ``resnet-lesion`` with these words and return its exit code."""
    return main([str(word) for word in words])


def start(*words, **how):
    """Start ``resnet-lesion`` with these words as a shell does, and return the process."""
    how = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **how}
    # as for a user, whose output waits in a buffer
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    environment |= {"PYTHONPATH": os.pathsep.join(sys.path), **how.pop("env", {})}
    return subprocess.Popen([*PROGRAM, *map(os.fspath, words)], env=environment, **how)
