"""Where the engine's time goes, written out."""

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
        *times, faults = line.removeprefix(name).split(" s")
        assert len([float(time) for time in times]) == 3  # by the clock, of the process, of the system
        assert int(faults) >= 0
        assert f"\n\n{name}\n---" in text
    assert text.count("convolution") > 2
