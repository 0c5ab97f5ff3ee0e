"""Contenders take turns, and are compared turn by turn for the same amount of work."""

from benchmarks import timing


def test_ratios_are_medians_of_turns_for_the_same_work():
    seconds = {timing.OURS: [1.0, 2.0, 4.0], "loop": [1.0, 1.0, 1.0]}
    found = timing.compared(seconds, {timing.OURS: 10, "loop": 2}, "lesions")
    assert found["loop"]["times_as_long"] == 0.5 * 10 / 2
    assert found[timing.OURS]["times_as_long"] == 1
    assert found["loop"]["seconds_for_one"] == 0.5


def test_every_other_turn_goes_the_other_way_round():
    ran = []
    contenders = {name: lambda name=name: ran.append(name) for name in "abc"}
    seconds = timing.side_by_side(contenders, turns=3)
    assert "".join(ran) == "abccbaabc"
    assert {name: len(values) for name, values in seconds.items()} == {"a": 3, "b": 3, "c": 3}
