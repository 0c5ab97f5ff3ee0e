"""Where the engine's time goes, written out."""

import re

import pytest

from benchmarks import engine, profile_engine, timing
from benchmarks.networks import Workload


def test_the_profile_has_both_contenders(tiny, monkeypatch):
    pytest.importorskip("resource")
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "2000000000")
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "1")
    text = profile_engine.report(Workload(tiny, "cpu"))
    assert text.startswith("Single deletion of cifar_preactresnet110, 3 images; ")
    assert "glibc gives memory back between passes." in text
    for name in (timing.OURS, engine.BARE):
        (line,) = (line for line in text.splitlines() if line.startswith(f"{name}  "))
        # clock, user, system and page faults: on a network this small, all may round to nothing
        assert re.fullmatch(rf"{name}( +\d+\.\d\d s){{3}} +\d+", line)
        assert f"\n\n{name}\n---" in text
    assert text.count("convolution") > 2
