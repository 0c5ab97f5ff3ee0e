"""Merging the shards of any partition gives what one run gives."""

import itertools
import json
from functools import cache

import numpy as np
import pytest
import torch
import xarray as xr
from helpers import models
from helpers.analyses import ANALYSES, check_merged
from hypothesis import given
from hypothesis import strategies as st

import resnet_lesion as rl

QUIET = {"show_progress": False}
LESIONS = ("evaluation", "deletion", "random_deletion", "reorder")
N_IMAGES = 11


def batches(size=3, n=N_IMAGES):
    return [*zip(*(part.split(size) for part in models.data(n)), strict=True)]


@cache
def whole(name):
    """Give what one run gives; shared, so not to be changed."""
    return ANALYSES[name](models.build(), batches())


@cache
def shard(i=0, n=3, *, n_images=N_IMAGES, name="deletion"):
    """Give what a shard gives; shared, so not to be changed."""
    return ANALYSES[name](models.build(), batches(n=n_images), shard=(i, n))


@pytest.mark.parametrize("name", ANALYSES)
@pytest.mark.parametrize("n", [1, 2, 3, 8])
def test_merged_shards_are_the_whole_run(name, n, tmp_path):
    analyse, model, shards, files = ANALYSES[name], models.build(), [], []
    for i in range(n):
        result = analyse(model, batches(), shard={"data": (i, n), "lesions": (0, 1)} if i else (i, n))
        if n == 1:  # the whole run is no shard
            assert "shard" not in result.attrs
            return
        shards.append(result)
        files.append(tmp_path / f"{i}.nc")
        rl.save(result, files[-1])
    merged = rl.merge(files)
    check_merged(merged, whole(name))
    xr.testing.assert_identical(rl.merge(reversed(shards)), merged)  # the other way round, not through files


@given(data=st.data())
def test_any_partition_in_any_order(data):
    name = data.draw(st.sampled_from(LESIONS))
    n, m = data.draw(st.integers(1, 8)), data.draw(st.integers(1, 4))
    if n * m == 1:
        return
    analyse, model = ANALYSES[name], models.build()
    parts = data.draw(st.permutations([*itertools.product(range(n), range(m))]))
    shards = [analyse(model, batches(), shard={"data": (i, n), "lesions": (j, m)}) for i, j in parts]
    check_merged(rl.merge(shards), whole(name))


def test_shares_of_the_lesions_say_which(tmp_path):
    deletion = rl.Deletion(models.build())
    result = deletion.analyze(batches(), n_deleted=[1, 2], n_draws=3, shard={"lesions": (1, 4)}, **QUIET)
    assert result.evaluated.dims == ("n_deleted", "draw")
    assert int(result.evaluated.sum()) == 2
    whole = deletion.analyze(batches(), n_deleted=[1, 2], n_draws=3, **QUIET)
    np.testing.assert_array_equal(result.error, whole.error.where(result.evaluated))
    assert (result.correct.where(~result.evaluated, 0) == 0).all()
    assert result.attrs["block_evaluations"] < whole.attrs["block_evaluations"]
    with pytest.raises(ValueError, match="expected a shard of the images only, as there are no lesions"):
        rl.PathGradient(models.build()).analyze(batches(), shard={"lesions": (1, 4)}, **QUIET)


def test_a_study_in_shards(tmp_path):
    options = {"n_deleted": [1, 2], "n_swaps": [1], "n_draws": 2, "n_paths": 3, "n_gradient_images": 7, **QUIET}
    model = models.build()
    expected = rl.study(model, batches(), **options)
    shards = [rl.study(model, batches(), shard=(i, 3), checkpoint=tmp_path, **options) for i in range(3)]
    assert "effective_path" not in shards[0].children
    assert len([*tmp_path.glob("*.1-of-3.part.nc")]) == 6
    merged = rl.merge(shards)
    assert set(merged.children) == set(expected.children)
    for name, node in expected.children.items():
        check_merged(merged[name].to_dataset(), node.to_dataset())


def test_left_out_images_are_counted_once():
    inputs, targets = models.data(N_IMAGES)
    targets[[2, 5]] = -100
    data = [*zip(inputs.split(3), targets.split(3), strict=True)]
    deletion = rl.Deletion(models.build())
    merged = rl.merge([deletion.analyze(data, shard=(i, 4), **QUIET) for i in range(4)])
    assert (int(merged.total), int(merged.skipped)) == (9, 2)
    check_merged(merged, deletion.analyze(data, **QUIET))


def test_an_accelerated_network_is_another_run():
    model, data = models.build(dtype=torch.float32), models.data(6, dtype=torch.float32)
    fast, slow = (rl.accelerate(model, data[0], fold_norms=fold, channels_last=False) for fold in (True, False))
    shards = [rl.Deletion(network).analyze(data, shard=(i, 2), **QUIET) for i, network in enumerate((fast, slow))]
    with pytest.raises(ValueError, match=r"expected shards of one run, but acceleration\.n_folded was"):
        rl.merge(shards)
    again = rl.Deletion(fast).analyze(data, shard=(1, 2), **QUIET)
    again.attrs["acceleration"] = again.attrs["acceleration"].replace('"rounding": ', '"rounding": 1')
    assert int(rl.merge([shards[0], again]).total) == 6


def shard_of_another_model():
    model = models.build()
    with torch.no_grad():
        model.head.weight[0, 0] += 1
    return ANALYSES["deletion"](model, batches(), shard=(1, 2))


def without(dataset, *attrs, drop=()):
    kept = {name: value for name, value in dataset.attrs.items() if name not in attrs}
    return dataset.drop_vars(drop).drop_attrs(deep=False).assign_attrs(kept)


def changed(dataset, name, value):
    dataset = dataset.copy(deep=True)
    dataset[name][...] = value
    return dataset


@pytest.mark.parametrize(
    ("results", "words"),
    [
        (lambda: [], "expected the results of shards, got none"),
        (lambda: [shard(0), shard(2)], r"expected each shard once, got shard 1 of 3 missing\."),
        (lambda: [shard(0), shard(1), shard(2), shard(1)], r"expected each shard once, got shard 1 of 3 twice\."),
        (lambda: [shard(0), shard(0)], "got shard 1 of 3, 2 of 3 missing and shard 0 of 3 twice"),
        (lambda: [shard(0, 2), shard(1, 3)], r"the data cut into as many parts everywhere, got \[2, 3\]"),
        (lambda: [shard(0, 2), shard_of_another_model()], "expected shards of one run, but weights_sha256 was"),
        (lambda: [shard(0, 2), shard(1, 2, name="reorder")], "expected shards of one run, but title was 'Error with"),
        (
            lambda: [shard(0, 2, n_images=5), shard(1, 2)],
            "the same images, got shards of 5 and of 11",
        ),
        # 5 and 4 images are what shards of 9 would be
        (lambda: [shard(0, 2, n_images=10), shard(1, 2, n_images=8)], "the same images, got shards of 8 and of 10"),
        (
            lambda: [without(shard(0, 2, n_images=5), "n_images"), without(shard(1, 2), "n_images")],
            r"expected shards of \[4, 4\] images .*, got \[3, 5\]",
        ),
        (
            lambda: [changed(shard(0, 2), "skipped", 1), changed(shard(1, 2), "skipped", 1)],
            r"expected shards that hold all 11 images together, got \[7, 6\]",
        ),
        (
            lambda: [whole("deletion")],
            "expected results of shards, got 'Error with each residual block deleted alone' of a whole run",
        ),
        (
            lambda: [shard(0, 2, name="random_deletion"), changed(shard(1, 2, name="random_deletion"), "deleted", 1)],
            "expected deleted to be equal in all shards",
        ),
    ],
)
def test_what_cannot_be_merged(results, words):
    with pytest.raises(ValueError, match=words):
        rl.merge(results())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda it: it.assign_attrs(fingerprint="[1, 2]"), r"expected a JSON object, got '\[1, 2\]'"),
        (lambda it: it.assign_attrs(fingerprint=3), "expected a JSON object, got '3'"),
        (lambda it: it.assign_attrs(fingerprint='{"rtol": '), "expected a JSON object, got"),
        (lambda it: it.assign_attrs(shard="[0, 2]"), "expected to read which shard a result is"),
        (lambda it: it.assign_attrs(shard='{"data": [0]}'), "expected to read which shard a result is"),
        (lambda it: it.assign_attrs(shard='{"data": [2, 2]}'), "expected to read which shard a result is"),
        (
            lambda it: it.assign_attrs(shard='{"data": [0, 1000000000000]}'),
            "the data cut into as many parts",
        ),
        (
            lambda it: without(it, "created", "data"),
            "a shard, got one without its data, created",
        ),
        (lambda it: without(it, drop="total"), "expected the result of a shard, got one without its total"),
        (lambda it: without(it, drop="layer"), "the same variables and coordinates, but the coordinate layer was"),
        (
            lambda it: it.assign_coords(stage=it.stage + 1),
            "but the coordinate stage was",
        ),
        (
            lambda it: without(it, drop="loss"),
            r"but loss was \('layer',\) and is None",
        ),
        (
            lambda it: it.isel(layer=slice(3)),
            "but the size of layer was 6 and is 3",
        ),
    ],
)
def test_a_file_that_somebody_made_up(change, words):
    with pytest.raises(ValueError, match=words):
        rl.merge([shard(0, 2), change(shard(1, 2))])


def test_what_merging_needs_may_be_missing_everywhere():
    parts = [shard(i, 2, name="path_gradient").drop_vars("sample") for i in range(2)]
    with pytest.raises(ValueError, match="expected a coordinate for sample, got a result without"):
        rl.merge(parts)
    shares = [rl.Deletion(models.build()).analyze(batches(), shard={"lesions": (j, 2)}, **QUIET) for j in range(2)]
    with pytest.raises(ValueError, match="expected parts of the lesions with evaluated"):
        rl.merge([share.drop_vars("evaluated") for share in shares])


def test_as_many_shards_as_a_file_likes_take_neither_time_nor_memory():
    parts = [shard(i, 2).assign_attrs(shard=f'{{"data": [{i}, {10**15}]}}') for i in range(2)]
    with pytest.raises(ValueError, match="expected all 1000000000000000 shards, got 2"):
        rl.merge(parts)


def test_one_file_given_twice_is_named(tmp_path):
    rl.save(shard(0, 2), tmp_path / "a.nc")
    (tmp_path / "link.nc").symlink_to(tmp_path / "a.nc")
    for again in ("a.nc", "link.nc"):
        with pytest.raises(ValueError, match=r"expected each file once, got '.*a\.nc' twice"):
            rl.merge([tmp_path / "a.nc", str(tmp_path / again)])


def test_things_that_are_no_results(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no file"):
        rl.merge([tmp_path / "missing.nc"])
    tree = xr.DataTree.from_dict({"deletion": shard(0, 2)})
    with pytest.raises(TypeError, match="expected Datasets or DataTrees, got some of each"):
        rl.merge([shard(0, 2), tree])
    other = xr.DataTree.from_dict({"reorder": shard(1, 2, name="reorder")})
    with pytest.raises(ValueError, match=r"expected the same groups in all trees, got \['/deletion'\] and"):
        rl.merge([tree, other])


def test_shares_of_lesions_must_agree_on_the_whole_network():
    deletion = rl.Deletion(models.build())
    shares = [deletion.analyze(batches(), shard={"lesions": (j, 2)}, **QUIET) for j in range(2)]
    with pytest.raises(ValueError, match="expected the whole network to be right equally often"):
        rl.merge([shares[0], changed(shares[1], "baseline_correct", 0)])
    with pytest.raises(ValueError, match="expected every lesion in one part"):
        rl.merge([shares[0], changed(shares[1], "evaluated", True)])


def test_a_mean_does_not_depend_on_the_order_of_the_shards():
    shards = [shard(i, 5).copy(deep=True) for i in range(5)]
    for i, part in enumerate(shards):
        part["loss"][...] = 10.0 ** (3 * i) / 3  # of sizes at which the order of a sum matters
    losses = {tuple(rl.merge(order).loss.values.tolist()) for order in itertools.permutations(shards)}
    assert len(losses) == 1


def test_more_shares_than_lesions():
    model = models.build()
    rows = [[0, 1, 2, 3, 4, -1]]
    shares = [rl.evaluate(model, batches(), rows, shard={"lesions": (j, 2)}, **QUIET) for j in range(2)]
    check_merged(rl.merge(shares), rl.evaluate(model, batches(), rows, **QUIET))


@pytest.mark.parametrize("one", [lambda: "shard.nc", lambda: shard(0)])
def test_one_result_alone_is_not_taken_for_several(one):
    with pytest.raises(TypeError, match=r"expected several results or files, .*, got one"):
        rl.merge(one())


def test_what_the_network_showed_is_the_worst_of_what_it_showed_each_shard():
    shards = [shard(i).copy() for i in range(3)]
    proofs = [
        {"blocks": 1e-7, "alone": 3e-7, "engine": None, "independent": True, "stackable": False},
        {"blocks": 2e-7, "alone": 1e-7, "engine": None, "independent": True, "stackable": True},
        {"blocks": 0.0, "alone": 2e-7, "engine": 5e-7, "independent": True, "stackable": True},
    ]
    for part, proof in zip(shards, proofs, strict=True):
        part.attrs["proof"] = json.dumps(proof)
    worst = {"blocks": 2e-7, "alone": 3e-7, "engine": 5e-7, "independent": True, "stackable": False}
    for order in itertools.permutations(shards):
        assert json.loads(rl.merge(order).attrs["proof"]) == worst
    del shards[1].attrs["proof"]  # of version 0.1.0
    assert "proof" not in rl.merge(shards).attrs
