"""Targets are met or not."""

from benchmarks import lesions, report, startup, timing


def test_targets_are_met_or_not():
    def entry(ours, accelerated, **more):
        seconds = {timing.OURS: [ours], lesions.ACCELERATED: [accelerated], lesions.HOOKS: [6.0]}
        units = dict.fromkeys(seconds, 1)
        return {"model": "cifar", "contenders": timing.compared(seconds, units, "lesions"), **more}

    def met(case, device, one):
        return [(target["figure"], target["met"]) for target in report.targets(case, device, [one])]

    plain, fast = entry(3.0, 2.0), entry(3.0, 2.0, accelerated_counts_that_differ=0)
    assert met("single-deletion", "cpu", plain) == [(2, False)]
    assert met("single-deletion", "cpu", fast) == [(3, True)]
    assert met("single-deletion", "cpu", entry(3.0, 2.0, accelerated_counts_that_differ=1)) == [(2, False)]
    assert met("single-deletion", "cuda", fast) == [(3, False)]
    assert met("single-deletion", "cuda", fast | {"model": "resnet50"}) == []
    assert met("engine-single", "cuda", fast | {"overhead": 0.11}) == [(11, False)]
    assert met("single-deletion", "cpu", {"model": "cifar", "failed": "out of memory"}) == []


def test_a_proof_is_within_its_share_or_not():
    entry = {"model": "cifar", "images": 1000, "share_of_proof": {"one": 0.019, "other": 0.03}}
    found = report.targets("proof", "cpu", [entry])
    assert [target["target"] for target in found] == [
        f"the proof takes at most 2 % of {name} on 1000 images" for name in ("one", "other")
    ]
    assert [(target["figure"], target["met"]) for target in found] == [(1.9, True), (3, False)]


def test_starts_are_met_or_not():
    seconds = {
        startup.TORCH: [1.0, 3.0, 2.0],
        startup.PACKAGE: [1.5, 4.0, 2.5],
        "resnet-lesion --help": [0.1, 0.4, 0.5],
    }
    contenders = timing.compared(seconds, dict.fromkeys(seconds, 1), "starts", reference=startup.TORCH)
    found = report.targets("start-up", "cpu", [{"model": "no network", "contenders": contenders}])
    assert [(target["figure"], target["met"]) for target in found] == [(0.5, True), (0.4, False)]
