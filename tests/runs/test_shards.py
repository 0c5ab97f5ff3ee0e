import numpy as np
import pytest

from resnet_lesion.network.orders import delete_random
from resnet_lesion.runs.shards import Shard, as_shard


def test_forms_of_a_shard():
    assert as_shard(None).is_whole
    assert as_shard((2, 5)) == Shard((2, 5))
    assert as_shard({"lesions": (1, 3)}) == Shard((0, 1), (1, 3))
    assert as_shard({"data": (0, 2), "lesions": (1, 3)}) == Shard((0, 2), (1, 3))
    assert as_shard((np.int64(2), 5)) == as_shard(as_shard([2, 5])) == Shard((2, 5))
    assert Shard((2, 5), (0, 3)).name == ".2-of-5.lesions-0-of-3"
    assert Shard().name == ""
    assert Shard.from_json(Shard((2, 5), (0, 3)).to_json()) == Shard((2, 5), (0, 3))


@pytest.mark.parametrize("shard", [(5, 5), (-1, 5), (0, 0), {"lesions": (3, 2)}])
def test_shards_out_of_bounds(shard):
    with pytest.raises(ValueError, match=r"expected shard as \(i, N\) with 0 <= i < N"):
        as_shard(shard)


@pytest.mark.parametrize("shard", [3, (1,), (1, 2, 3), (0.5, 2), {"images": (0, 2)}, {}, "1/2", ("a", "b")])
def test_what_is_no_shard(shard):
    with pytest.raises(TypeError, match=r"expected shard as .* got"):
        as_shard(shard)


SLURM = "SLURM_ARRAY_TASK_"


@pytest.fixture
def environment(monkeypatch):
    """Nothing that says anything of shards, and a function that sets it."""
    for name in ("RANK", "WORLD_SIZE", *(f"{SLURM}{name}" for name in ("ID", "COUNT", "MIN", "MAX"))):
        monkeypatch.delenv(name, raising=False)

    def set_(**variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, str(value))

    return set_


def array(environment, numbers, task):
    """Set what Slurm sets for one task of ``sbatch --array=...`` with these numbers."""
    values = {"ID": task, "COUNT": len(numbers), "MIN": min(numbers), "MAX": max(numbers)}
    environment(**{f"{SLURM}{name}": value for name, value in values.items()})


def test_an_environment_that_says_nothing(environment):
    with pytest.raises(ValueError, match=r"found none of torchrun \(RANK, WORLD_SIZE\), a Slurm array"):
        as_shard("env")


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"RANK": 3, "WORLD_SIZE": 8}, (3, 8)),
        ({"RANK": 0, "WORLD_SIZE": 1}, (0, 1)),
        ({f"{SLURM}ID": 3, f"{SLURM}COUNT": 8}, (3, 8)),
    ],
)
def test_the_environment_says_which(environment, variables, expected):
    environment(**variables)
    assert as_shard("env") == Shard(expected)
    environment(**{next(iter(variables)): "first"})
    with pytest.raises(ValueError, match="expected whole numbers in"):
        as_shard("env")


@pytest.mark.parametrize("lowest", [0, 1])
def test_a_whole_slurm_array_has_each_shard_once(environment, lowest):
    numbers, found = range(lowest, lowest + 5), []
    for task in numbers:
        array(environment, numbers, task)
        found.append(as_shard("env").data)
    assert found == [(i, 5) for i in range(5)]


@pytest.mark.parametrize(
    ("numbers", "seen"),
    [
        ([3], "of 1 from 3 to 3"),
        ([0], "of 1 from 0 to 0"),  # the first of many, submitted again
        ([3, 4, 5], "of 3 from 3 to 5"),
        ([1, 2, 5], "of 3 from 1 to 5"),
        ([0, 2, 4, 6], "of 4 from 0 to 6"),
    ],
)
def test_a_part_of_a_slurm_array_says_that_it_does_not_know_of_how_many(environment, numbers, seen):
    for task in numbers:
        array(environment, numbers, task)
        with pytest.raises(ValueError, match=rf"got task {task} {seen}\. If these .* Slurm no longer says"):
            as_shard("env")


@pytest.mark.parametrize("m", [1, 2, 3, 7, 40])
def test_each_lesion_is_in_one_share_with_its_neighbours(m):
    n = 6
    rows = np.stack([delete_random(n, k, seed=0, draw=d) for k in (1, 2, 3) for d in range(5)])
    shares = [Shard(lesions=(j, m)).lesion_numbers(rows) for j in range(m)]
    assert sorted(np.concatenate(shares).tolist()) == list(range(len(rows)))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    texts = ["".join(chr(65 + block) for block in row) for row in rows]
    ranked = sorted(texts)
    for share in shares:
        places = sorted(ranked.index(texts[i]) for i in share)
        assert len(share) < 2 or places[-1] - places[0] < len(share) + len(texts) - len(set(texts))
