"""``from benchmarks import ...`` means the package at the root, wherever this is run.

It is loaded by its place, since the folder of these tests has the same name. The root is not put before what is
installed, as the installed package is what is tested.
"""

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_SPEC = spec_from_file_location("benchmarks", ROOT / "benchmarks/__init__.py")
sys.modules["benchmarks"] = module_from_spec(_SPEC)
_SPEC.loader.exec_module(sys.modules["benchmarks"])
sys.path.append(str(ROOT))  # last; where the processes that a case starts find it


@pytest.fixture
def tiny():
    """A network of 12 blocks, since up to 10 are deleted."""
    from benchmarks.networks import Spec

    return Spec("cifar_preactresnet110", pixels=8, images=3, draws=1, timed=4, turns=2, stage_blocks=4)
