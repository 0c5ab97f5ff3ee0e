"""Where the time of a sweep goes, written out."""

import re
from dataclasses import replace

import pytest

from benchmarks import profile_deletion
from benchmarks.networks import Workload


@pytest.mark.sweep
def test_the_profile_has_all_contenders(tiny):
    text = profile_deletion.report(Workload(replace(tiny, stage_blocks=1), "cpu"))
    assert "3 images of 8 x 8; counts that differ: 0.\n" in text
    rows = re.findall(r"^(.{34}) +(\d+\.\d+) +(\d+\.\d+)$", text, re.M)
    assert [name.strip() for name, *_ in rows] == [
        "hook loop, the model as it is",
        "sweep, the model as it is",
        "sweep, accelerated",
        "sweep, accelerated and compiled",
        "its blocks alone, as they are",
        "its blocks alone, accelerated",
    ]
    assert float(rows[0][2]) == 1
    assert text.count("convolution") > 3
