import itertools
from functools import partial

import numpy as np
import pytest
import timm
import torch
from helpers import models
from helpers.analyses import QUIET, check_identical, check_merged
from helpers.image_files import write_images
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    SequentialSampler,
    TensorDataset,
    default_collate,
    get_worker_info,
)

import resnet_lesion as rl
from resnet_lesion.loading.images import ImageSet
from resnet_lesion.loading.loaders import evaluation_loader
from resnet_lesion.runs.data import batches
from resnet_lesion.runs.reading import Reading, every_nth, in_batches_of

CPU = torch.device("cpu")


@given(
    sizes=st.lists(st.integers(0, 5), min_size=1, max_size=8),
    n=st.integers(1, 9),
    size=st.integers(1, 7),
    data=st.data(),
)
def test_shards_take_every_nth_image_in_full_batches(sizes, n, size, data):
    i = data.draw(st.integers(0, n - 1))
    numbers = torch.arange(sum(sizes))
    stream = [(part[:, None].double(), part) for part in numbers.split(sizes)]
    taken = [*in_batches_of(size, every_nth(stream, i, n))]
    expected = list(range(i, sum(sizes), n))
    assert [int(label) for _, labels in taken for label in labels] == expected
    assert [int(x) for inputs, _ in taken for x in inputs[:, 0]] == expected
    assert all(len(labels) == size for _, labels in taken[:-1])


def test_a_shards_batches_are_as_large_as_the_loaders():
    seen = []
    model, data = models.build(), models.data(23)
    hook = model.stem.register_forward_pre_hook(lambda _module, args: seen.append(len(args[0])))
    loader = DataLoader(TensorDataset(*data), batch_size=4)
    rl.evaluate(model, loader, [[0, 1, 2, 3, 4, -1]], shard=(1, 3), **QUIET)
    hook.remove()
    assert seen == [5, 1, 3, 4, 4]  # the first three to prove the network


class Images(Dataset):
    """Images that remember which of them were read, and stop the run at one of them."""

    def __init__(self, data, stop_at=None):
        self.data, self.stop_at, self.read = data, stop_at, []

    def __getitem__(self, i):
        if i == self.stop_at:
            raise OSError("stopped")
        self.read.append(i)
        return self.data[0][i], self.data[1][i]

    def __len__(self):
        return len(self.data[0])


@pytest.mark.parametrize(("i", "n", "start"), [(0, 1, 0), (0, 1, 7), (2, 3, 0), (2, 3, 2), (1, 9, 3)])
def test_of_a_loader_only_what_is_wanted_is_read(i, n, start):
    images = Images(models.data(20))
    reading = Reading(DataLoader(images, batch_size=4))
    assert reading.batch_size == 4
    assert images.read == [0, 1, 2, 3]
    assert torch.equal(reading.first[0], images.data[0][:4])
    images.read.clear()
    found = [*reading.every_nth(i, n, start)]
    expected = list(range(i, 20, n))[start:]
    assert images.read == expected
    assert torch.equal(torch.cat([images.data[0][:0]] + [inputs for inputs, _ in found]), images.data[0][expected])


@pytest.mark.parametrize(
    "options",
    [
        {"shuffle": True, "generator": torch.Generator().manual_seed(0)},
        {"drop_last": True},
        {"sampler": [3, 1, 2, 5, 4]},
        {"batch_sampler": [[0, 3], [1, 2]]},
        {"batch_sampler": BatchSampler([5, 0, 3], 2, False)},
        {"sampler": SequentialSampler(range(4))},  # of other data, the first images of this
    ],
)
def test_a_loader_with_an_order_of_its_own_is_read_as_it_comes(options):
    options = {"batch_size": 2, **options} if "batch_sampler" not in options else options
    loader = DataLoader(TensorDataset(*models.data(9)), **options)
    if "generator" in options:
        options["generator"].manual_seed(0)
    reading = Reading(loader)
    found = torch.cat([targets for _, targets in reading.every_nth(0, 1)])
    if "generator" in options:
        options["generator"].manual_seed(0)
    assert torch.equal(found, torch.cat([targets for _, targets in batches(loader)]))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stopped_run_reads_on_where_it_was(tmp_path, always_saved, impatient, workers):
    model, data = models.build(), models.data(11)

    def analyse(images, **how):
        return rl.Deletion(model).analyze(DataLoader(images, batch_size=2, num_workers=workers), **how, **QUIET)

    expected = analyse(Images(data), shard=(1, 2))
    with pytest.raises(OSError, match="stopped"):
        analyse(Images(data, stop_at=7), shard=(1, 2), checkpoint=tmp_path)
    images = Images(data)
    check_identical(analyse(images, shard=(1, 2), checkpoint=tmp_path), expected)
    if not workers:
        assert images.read == [0, 1, 3, 5, 7, 9]  # to prove the network; the last that was done; the others


def test_timms_loader_too(tmp_path):
    folder = write_images(tmp_path / "images", n=5)
    model = timm.create_model("cifar_preactresnet38", num_classes=2)
    loader = evaluation_loader(ImageSet(str(folder), "test").open(), model, batch_size=3, workers=0, device=CPU)
    whole = torch.cat([inputs for inputs, _ in loader])
    prefetching = timm.data.loader.PrefetchLoader(
        DataLoader(TensorDataset((whole * 50).clamp(0, 255).byte(), torch.arange(10) % 2), batch_size=3), device=CPU
    )
    for data in (loader, prefetching):
        expected = torch.cat([inputs for inputs, _ in data])
        reading = Reading(data)
        np.testing.assert_array_equal(reading.first[0], expected[:3])
        np.testing.assert_array_equal(torch.cat([x for x, _ in reading.every_nth(1, 3, 1)]), expected[4::3])
        np.testing.assert_array_equal(torch.cat([x for x, _ in reading.some([1, 2, 4, 9])]), expected[[1, 2, 4, 9]])
        assert len(torch.cat([inputs for inputs, _ in data])) == 10


def test_a_loader_of_somebodys_own_is_read_as_it_comes():
    class FirstBatches:
        """Anybody's wrapper that looks like timm's, but yields less."""

        def __init__(self, loader):
            self.loader, self.dataset = loader, loader.dataset

        def __iter__(self):
            return itertools.islice(iter(self.loader), 2)

    loader = FirstBatches(DataLoader(TensorDataset(*models.data(9)), batch_size=2))
    assert sum(len(targets) for _, targets in Reading(loader).every_nth(0, 1)) == 4


class OpenedByWorkers(Dataset):
    """Whatever it would open in the main process, its workers would share."""

    def __getitem__(self, i):
        if get_worker_info() is None:
            raise RuntimeError("read in the main process")
        return torch.full((3, 4, 4), float(i)), i

    def __len__(self):
        return 6


def test_the_first_image_is_read_where_the_others_are():
    reading = Reading(DataLoader(OpenedByWorkers(), batch_size=2, num_workers=2))
    assert reading.first[1].tolist() == [0, 1]
    assert [int(x) for _, targets in reading.every_nth(1, 2) for x in targets] == [1, 3, 5]


class Broken(Images):
    """Images some of which cannot be read: None in their place."""

    def __init__(self, data, broken, stop_at=None):
        super().__init__(data, stop_at)
        self.broken = broken

    def __getitem__(self, i):
        item = super().__getitem__(i)
        return None if i in self.broken else item


def dropping(items):
    """Collate what is there, as everybody does who has broken images; None if nothing is."""
    kept = [item for item in items if item is not None]
    return default_collate(kept) if kept else None


def dropping_to_nothing(items):
    """Collate what is there, to tensors without images if nothing is."""
    kept = [item for item in items if item is not None]
    return default_collate(kept) if kept else (torch.zeros(0, 3, 6, 6), torch.zeros(0, dtype=torch.int64))


BROKEN = [{0}, {2}, {9, 10, 11}, {*range(8), 13}]


def whole(data, broken):
    """Return the images that are left."""
    kept = [i for i in range(len(data[0])) if i not in broken]
    return data[0][kept], data[1][kept]


@pytest.mark.parametrize("collate", [dropping, dropping_to_nothing])
@pytest.mark.parametrize("broken", BROKEN)
def test_broken_images_may_be_left_out(collate, broken):
    model, data = models.build(), models.data(14)
    load = lambda: DataLoader(Broken(data, broken), batch_size=4, collate_fn=collate)  # noqa: E731
    inputs, targets = whole(data, broken)
    first = next(batch for batch in load() if batch is not None and len(batch[1]))
    assert torch.equal(Reading(load()).first[0], first[0])
    expected = rl.Deletion(model).analyze((inputs, targets), **QUIET)
    found = rl.Deletion(model).analyze(load(), **QUIET)
    assert int(found.total) == len(targets)
    np.testing.assert_array_equal(found.correct, expected.correct)
    np.testing.assert_allclose(found.loss, expected.loss, rtol=1e-12)
    with torch.no_grad():  # by a plain loop over the loader
        right = sum(
            int((model(batch[0].double()).argmax(1) == batch[1]).sum()) for batch in load() if batch is not None
        )
    assert int(found.baseline_correct) == right
    for analyse in (rl.Deletion(model).analyze, partial(rl.PathGradient(model).analyze, per_sample=True)):
        merged = rl.merge([analyse(load(), shard=(i, 3), **QUIET) for i in range(3)])
        check_merged(merged, analyse(load(), **QUIET))


@pytest.mark.parametrize(
    ("broken", "shard", "workers"),
    [({0}, None, 0), ({2}, None, 0), ({0, 1, 2, 3}, (1, 2), 0), ({1, 3, 5, 7}, (1, 2), 0), ({0, 5}, None, 2)],
)
def test_a_stopped_run_goes_on_behind_broken_images(tmp_path, always_saved, impatient, broken, shard, workers):
    model, data = models.build(), models.data(20)

    def analyse(images, **how):
        loader = DataLoader(images, batch_size=2, num_workers=workers, collate_fn=dropping)
        return rl.Deletion(model).analyze(loader, shard=shard, **how, **QUIET)

    computed = []
    hook = model.register_forward_pre_hook(lambda _module, args: computed.append(len(args[0])))
    expected = analyse(Broken(data, broken))
    with pytest.raises(OSError, match="stopped"):
        analyse(Broken(data, broken, stop_at=15), checkpoint=tmp_path)
    computed.clear()
    check_identical(analyse(Broken(data, broken), checkpoint=tmp_path), expected)
    hook.remove()
    assert sum(computed) - (5 + 1 + 3) < int(expected.total), "what was done is read again, but not computed"


def test_a_loader_of_which_nothing_is_left_is_empty():
    for images in (Broken(models.data(5), {*range(5)}), Broken(models.data(0), set())):
        with pytest.raises(ValueError, match="at least one image, got empty data"):
            rl.Deletion(models.build()).analyze(DataLoader(images, batch_size=2, collate_fn=dropping), **QUIET)
    alone = DataLoader(Broken(models.data(4), {0, 2, 3}), batch_size=2, collate_fn=dropping)
    with pytest.raises(ValueError, match="expected images in shard 1 of 2, got none"):
        rl.Deletion(models.build()).analyze(alone, shard=(1, 2), **QUIET)


def test_batches_are_collated_as_they_come():
    """A ``collate_fn`` that pads to the largest image of its batch makes the same shapes as in a plain loop."""

    class Sizes(Images):
        def __getitem__(self, i):
            image, label = super().__getitem__(i)
            return image[..., : 5 + i % 2], label

    def padding(items):
        width = max(image.shape[-1] for image, _ in items)
        return default_collate([(torch.nn.functional.pad(x, (0, width - x.shape[-1])), y) for x, y in items])

    loader = DataLoader(Sizes(models.data(6)), batch_size=2, collate_fn=padding)
    assert Reading(loader).first[0].shape == (2, 3, 6, 6)
    assert int(rl.Deletion(models.build()).analyze(loader, **QUIET).total) == 6
