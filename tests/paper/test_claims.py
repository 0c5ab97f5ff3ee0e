"""Each claim's verdict on results made up for it, and its values computed by a plain loop."""

import math
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import resnet_lesion as rl
from resnet_lesion.paper.claims import claims
from resnet_lesion.paper.comparison import compare
from resnet_lesion.reports.summary import summarise_claims

RESULTS = Path(__file__).parents[2] / "docs/results"
N, LENGTHS = 20, np.arange(21)


def errs(n):
    """Three trainings that err on n images, on one more, and on two more of 200."""
    return [np.arange(200) >= n + i for i in range(3)]


def deletion(increase=0.0, down=0.05, baseline=0.06, n=N):
    error = np.full(n, baseline + increase)
    is_downsampling = np.zeros(n, dtype=bool)
    is_downsampling[[n // 3, 2 * n // 3]] = True
    error[is_downsampling] = baseline + down
    return xr.Dataset(
        {
            "error": ("layer", error),
            "error_low": ("layer", error - 0.01),
            "error_high": ("layer", error + 0.01),
            "baseline_error": baseline,
        },
        {"is_downsampling": ("layer", is_downsampling)},
        {"n_classes": 10},
    )


def groups(**changes):
    """Results that agree with the paper in everything except what is changed."""
    n_deleted = np.arange(1, 16)
    rising = xr.Dataset(
        {
            "error": (("n_deleted", "draw"), 0.06 + 0.014 * n_deleted[:, None] + [[-0.01, 0.0, 0.01]]),
            "remaining_fraction": (("n_deleted", "path_length"), rl.remaining_fraction(N, n_deleted).values),
        },
        {"n_deleted": n_deleted, "path_length": LENGTHS},
    )
    tau = np.linspace(1, 0.2, 12).reshape(4, 3)
    reorder = xr.Dataset({"kendall_tau": (("n_swaps", "draw"), tau), "error": (("n_swaps", "draw"), 1 - tau)})
    sampled = xr.Dataset({"mean_gradient_norm": ("path_length", 10.0 ** (-0.3 * LENGTHS))})
    effective = xr.Dataset(
        {
            "effective_high": 6,
            "effective_high_interval": ("quantile", [6.0, 7.0]),
            "effective_path_fraction": 0.003,
            "effective_path_fraction_interval": ("quantile", [0.002, 0.004]),
        }
    )
    return {
        "plain/deletion": deletion(),
        "plain/random_deletion": rising,
        "plain/reorder": reorder,
        "plain/sampled_path_gradient": sampled,
        "plain/effective_path": effective,
        "stochastic_depth/deletion": deletion(down=0.01),
        "vgg15/deletion": deletion(0.84, 0.84),
        "vgg15_bn/deletion": deletion(0.84, 0.84),
        "comparison": compare(errs(12), errs(12)[::-1]),
    } | changes


def verdicts(**changes):
    result = claims(groups(**{key.replace("__", "/"): value for key, value in changes.items()}))
    return {
        (str(figure), str(statement)): bool(agrees)
        for figure, statement, agrees in zip(
            result.figure.values, result.statement.values, result.agrees.values, strict=True
        )
    }


def test_results_like_the_papers_agree_in_everything():
    assert all(verdicts().values())
    assert len(verdicts()) == 15


def changed_error(name, values):
    dataset = groups()[name]
    return dataset.assign(error=(dataset.error.dims, np.broadcast_to(values, dataset.error.shape)))


@pytest.mark.parametrize(
    ("changes", "figure", "words"),
    [
        ({"plain__deletion": deletion(0.02)}, "3", "no noticeable impact"),
        ({"plain__deletion": deletion(0.02, 0.01)}, "3", "Only blocks that downsample"),
        ({"vgg15__deletion": deletion(0.5, 0.5)}, "3", "without batch norm"),
        ({"vgg15_bn__deletion": deletion(0.0, 0.0, baseline=0.9)}, "3", "with batch norm"),
        ({"plain__random_deletion": changed_error("plain/random_deletion", 0.5)}, "5a", "about 0.2"),
        (
            {"plain__random_deletion": changed_error("plain/random_deletion", np.arange(15)[:, None] % 2)},
            "5a",
            "rises smoothly",
        ),
        ({"plain__reorder": changed_error("plain/reorder", np.arange(3) * 0.1)}, "5b", "rises smoothly"),
        (
            {"plain__sampled_path_gradient": xr.Dataset({"mean_gradient_norm": ("path_length", 1.1**LENGTHS)})},
            "6b",
            "falls exponentially",
        ),
        ({"plain__effective_path": groups()["plain/effective_path"].assign(effective_high=15)}, "6c", "Almost all"),
        (
            {"plain__effective_path": groups()["plain/effective_path"].assign(effective_path_fraction=0.3)},
            "6c",
            "0.45 %",
        ),
        (
            {"comparison": compare(errs(12), errs(60))},
            "section 5",
            "no significant difference",
        ),
        ({"stochastic_depth__deletion": deletion(0.1, 0.1)}, "8", "slightly more resilient"),
        ({"stochastic_depth__deletion": deletion(-0.05, 0.04)}, "8", "mostly at the blocks that downsample"),
    ],
)
def test_results_unlike_the_papers_do_not(changes, figure, words):
    found = verdicts(**changes)
    (agrees,) = (agrees for (where, statement), agrees in found.items() if where == figure and words in statement)
    assert not agrees


def value(result, words):
    """The numbers of the claim whose statement or quantity begins so."""
    (row,) = (
        i
        for i in result.claim.values
        if any(str(result[name].values[i]).startswith(words) for name in ("statement", "quantity"))
    )
    return {name: float(result[name][row]) for name in ("paper", "ours", "low", "high")}


def mean_and_interval(values, student):
    """Written out; ``student`` is the 97.5 % quantile of Student's t with one degree of freedom less than values."""
    n = len(values)
    mean = sum(values) / n
    half = student * math.sqrt(sum((value - mean) ** 2 for value in values) / (n - 1) / n)
    return {"ours": mean, "low": mean - half, "high": mean + half}


def test_deletions_of_one_block_by_hand():
    random = np.random.default_rng(0)
    plain, dropped = (
        deletion().assign(error=("layer", random.uniform(0.1, 0.3, N)), baseline_error=0.125) for _ in range(2)
    )
    plain = plain.assign(error_low=plain.error - random.uniform(0, 0.1, N), error_high=plain.error + 0.25)
    result = claims(groups(**{"plain/deletion": plain, "stochastic_depth/deletion": dropped}))

    down = [i for i in range(N) if plain.is_downsampling[i]]
    others = [i for i in range(N) if i not in down]

    def median(name):
        values = sorted(float(plain[name][i]) for i in others)  # 18 of them
        return (values[8] + values[9]) / 2 - 0.125

    expected = {"paper": 0, "ours": median("error"), "low": median("error_low"), "high": median("error_high")}
    assert value(result, "median increase") == pytest.approx(expected)
    mean = sum(float(plain.error[i]) - 0.125 for i in down) / 2
    nothing = {"paper": np.nan, "low": np.nan, "high": np.nan}
    assert value(result, "mean increase of the error with one downsampling") == pytest.approx(
        {**nothing, "ours": mean}, nan_ok=True
    )
    differences = [float(dropped.error[i] - plain.error[i]) for i in range(N)]
    assert value(result, "mean increase of the error with one block") == pytest.approx(
        {"paper": np.nan, **mean_and_interval(differences, 2.093024054408263)}, nan_ok=True
    )
    of_down = sum(differences[i] for i in down) / 2
    assert value(result, "the same for the blocks that downsample") == pytest.approx(
        {**nothing, "ours": of_down}, nan_ok=True
    )


def test_many_deletions_by_hand():
    random = np.random.default_rng(1)
    values = random.uniform(0, 1, (15, 3))
    result = claims(groups(**{"plain/random_deletion": changed_error("plain/random_deletion", values)}))
    assert value(result, "With 10 random") == pytest.approx(
        {"paper": 0.2, **mean_and_interval(values[9].tolist(), 4.302652729911275)}
    )
    means = [sum(row) / 3 for row in values.tolist()]
    ranks = [sum(other < mean for other in means) for mean in means]
    # Spearman's formula for ranks without ties
    correlation = 1 - 6 * sum((i - rank) ** 2 for i, rank in enumerate(ranks)) / (15 * (15**2 - 1))
    assert value(result, "rank correlation of the mean error")["ours"] == pytest.approx(correlation)
    assert result.ours.attrs["long_name"] == "our value"


def test_values_without_spread_have_an_interval_without_width():
    constant = changed_error("plain/random_deletion", 0.5)
    found = value(claims(groups(**{"plain/random_deletion": constant})), "With 10 random")
    assert found == pytest.approx({"paper": 0.2, "ours": 0.5, "low": 0.5, "high": 0.5})
    one = constant.isel(draw=[0])
    found = value(claims(groups(**{"plain/random_deletion": one})), "With 10 random")
    assert found == pytest.approx({"paper": 0.2, "ours": 0.5, "low": np.nan, "high": np.nan}, nan_ok=True)


def test_paths_by_hand():
    result = claims(groups())
    share = sum(math.comb(54, length) for length in range(19, 36)) / 2**54
    assert value(result, "their share of all paths")["ours"] == pytest.approx(share)

    norms = [10 ** (-0.3 * length + 0.1 * (-1) ** length) for length in LENGTHS.tolist()]
    sampled = xr.Dataset({"mean_gradient_norm": ("path_length", [*norms[:20], 0.0])})  # zero has no logarithm
    found = value(claims(groups(**{"plain/sampled_path_gradient": sampled})), "slope of log10")
    logs = [math.log10(norm) for norm in norms[:20]]
    x, y = sum(range(20)) / 20, sum(logs) / 20
    slope = sum((i - x) * (log - y) for i, log in enumerate(logs)) / sum((i - x) ** 2 for i in range(20))
    assert found["ours"] == pytest.approx(slope)
    assert found["low"] < slope < found["high"]

    assert value(result, "longest effective path") == {"paper": 17, "ours": 6, "low": 6, "high": 7}
    assert value(result, "share of all paths") == {"paper": 0.0045, "ours": 0.003, "low": 0.002, "high": 0.004}
    # ten of twenty blocks deleted leave a path of k of them if all k are among the other ten
    left = {k: math.comb(10, k) / math.comb(20, k) if k <= 10 else 0 for k in (5, 17)}
    assert value(result, "Deletion removes mostly long paths")["ours"] == pytest.approx(left[17] / left[5])


def test_claims_of_the_committed_results_stand():
    """What the gallery shows: the verdicts follow from the groups in the file as they did when it was written."""
    for name in ("digits", "cifar10-jpeg"):
        tree = rl.open(RESULTS / f"reproduction-{name}.nc")
        groups = {node.path.strip("/"): node.to_dataset() for node in tree.subtree}
        stored, found = groups["claims"], claims(groups)
        np.testing.assert_array_equal(found.statement, stored.statement)
        np.testing.assert_array_equal(found.agrees, stored.agrees)
        for number in ("paper", "ours", "low", "high"):
            np.testing.assert_allclose(found[number], stored[number], rtol=1e-12)


def test_claims_in_words():
    text = summarise_claims(claims(groups(**{"plain/deletion": deletion(0.02)})))
    assert "3         Deleting a block of the residual network has no noticeable impact: NO\n" in text
    assert "median increase of the error with one block deleted, blocks that downsample left out: 0.02 (" in text
    assert "yes if the increase is at most 0.01" in text
