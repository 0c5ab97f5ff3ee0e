"""What a trail says of the images, and that a run goes on only after the same ones."""

import pytest
import torch
from helpers import models
from helpers.analyses import QUIET, Batches, Stop, check_identical
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset, TensorDataset

import resnet_lesion as rl
from resnet_lesion.results.provenance import image_digest
from resnet_lesion.runs.checkpoint import Done
from resnet_lesion.runs.reading import Reading
from resnet_lesion.runs.trail import Trail, remaining, sampled, sum_of_labels


class Images(Dataset):
    """Images that are read one by one, and which were."""

    def __init__(self, data):
        self.data, self.read = data, []

    def __getitem__(self, i):
        self.read.append(i)
        return self.data[0][i], self.data[1][i]

    def __len__(self):
        return len(self.data[0])


class Listed(Images):
    """Images whose labels are listed, as torchvision's data sets list them."""

    @property
    def targets(self):
        return self.data[1].tolist()


KINDS = {
    "tensors": lambda data: data,
    "batches": lambda data: [*zip(*(part.split(3) for part in data), strict=True)],
    "stream": lambda data: Batches(data, 3),
    "loader of tensors": lambda data: DataLoader(TensorDataset(*data), batch_size=3),
    "loader": lambda data: DataLoader(Images(data), batch_size=3),
    "loader with labels": lambda data: DataLoader(Listed(data), batch_size=3),
}


def splitmix(number):
    """Give the factor of an image's label, in Python's whole numbers: those of 64 bits, with a sign."""

    def wrap(value):
        return (value + 2**63) % 2**64 - 2**63

    mixed = wrap(number * 0x9E3779B97F4A7C15)
    mixed = wrap((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9)
    mixed = wrap((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB)
    return mixed ^ (mixed >> 31) | 1


@given(labels=st.lists(st.integers(-100, 10_000), max_size=30), cut=st.integers(0, 30), start=st.integers(0, 10**7))
def test_labels_become_one_number(labels, cut, start):
    expected = sum(label * splitmix(start + k) for k, label in enumerate(labels)) % 2**64
    labels = torch.tensor(labels, dtype=torch.int64)
    assert int(sum_of_labels(labels, start)) % 2**64 == expected
    first, rest = labels[:cut], labels[cut:]
    assert int(sum_of_labels(first, start) + sum_of_labels(rest, start + len(first))) % 2**64 == expected


def test_other_labels_become_other_numbers():
    labels = torch.randint(0, 3, (200,), generator=torch.Generator().manual_seed(0))
    seen = {int(sum_of_labels(labels))}
    for i in range(200):
        for swapped in range(i):
            other = labels.clone()
            other[[i, swapped]] = other[[swapped, i]]
            if not torch.equal(other, labels):
                seen.add(int(sum_of_labels(other)))
    n_different = sum(int(labels[i]) != int(labels[k]) for i in range(200) for k in range(i))
    assert len(seen) == 1 + n_different


@given(sizes=st.lists(st.integers(0, 6), min_size=1, max_size=8), stop=st.integers(0, 8))
def test_a_trail_does_not_depend_on_the_batches(sizes, stop):
    inputs, targets = models.data(sum(sizes) + 1)
    whole = Trail(Done())
    whole.add(inputs, targets)
    found = Trail(Done())
    for k, batch in enumerate(zip(inputs.split([*sizes, 1]), targets.split([*sizes, 1]), strict=True)):
        if k == stop:
            found = Trail(found.done())  # through a file
        if len(batch[1]):
            found.add(*batch)
    assert found.done() == whole.done()
    n = sum(sizes) + 1
    digests = [image_digest(inputs[k : k + 1], targets[k : k + 1]) for k in range(n)]
    assert whole.done(complete=True) == Done(
        n, digests[-1], True, int(sum_of_labels(targets)), [digests[k] for k in (1, 2, 4, 8, 16, 32) if k < n]
    )
    assert sampled(n) == [k for k in (1, 2, 4, 8, 16, 32) if k < n]


def changed(part, i, data):
    """Give the data with one image, or one label, that is another."""
    inputs, targets = (tensor.clone() for tensor in data)
    if part == "image":
        inputs[i] += 1
    else:
        targets[i] = (targets[i] + 1) % models.N_CLASSES
    return inputs, targets


@pytest.mark.parametrize("shard", [None, (1, 2)])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_finished_is_compared_with_the_data(kind, shard, tmp_path):
    model, make, data = models.build(), KINDS[kind], models.data(12)

    def analyse(data):
        return rl.Deletion(model).analyze(make(data), checkpoint=tmp_path, shard=shard, **QUIET)

    forward = []
    model.register_forward_pre_hook(lambda _module, args: forward.append(len(args[0])))
    expected = analyse(data)
    forward.clear()
    check_identical(analyse(data), expected)
    assert forward == [5, 1, 3], "nothing is computed again, the network is only proved"
    longer = models.data(14)
    assert torch.equal(longer[0][:12], data[0])
    words = "n_images was 12 and is 14" if kind != "stream" else "got more images"
    with pytest.raises(ValueError, match=words):
        analyse(longer)
    words = "n_images was 12 and is 10" if kind != "stream" else "got fewer images"
    with pytest.raises(ValueError, match=words):
        analyse((data[0][:10], data[1][:10]))
    # of this shard the numbers 1 and 2 are in the sample, and the last
    for i in (3, 5, 11) if shard else (1, 2, 11):
        with pytest.raises(ValueError, match=r"in which \d+ images were done, got another one"):
            analyse(changed("image", i, data))
    if kind != "loader":  # which would have to read all images for their labels
        with pytest.raises(ValueError, match=r"in which \d+ images were done, got other labels"):
            analyse(changed("label", 7, data))
    check_identical(analyse(data), expected)  # nothing was lost


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "tensors"])  # which are one batch
def test_what_was_begun_too(kind, tmp_path, always_saved, monkeypatch):
    model, make, data = models.build(), KINDS[kind], models.data(12)
    expected = rl.Deletion(model).analyze(make(data), **QUIET)

    def analyse(data):
        return rl.Deletion(model).analyze(make(data), checkpoint=tmp_path, **QUIET)

    class Stopping(Trail):
        def add(self, inputs, targets):
            if self.n_images == 9:
                raise Stop
            super().add(inputs, targets)

    with monkeypatch.context() as patch:
        patch.setattr("resnet_lesion.runs.run.Trail", Stopping)
        with pytest.raises(Stop):
            analyse(data)
    with pytest.raises(ValueError, match="in which 9 images were done, got another one"):
        analyse(changed("image", 4, data))
    if kind != "loader":
        with pytest.raises(ValueError, match="in which 9 images were done, got other labels"):
            analyse(changed("label", 6, data))
    check_identical(analyse(data), expected)


def test_a_data_set_may_list_other_labels_than_it_gives():
    """As with torchvision's ``target_transform``: then all are read, and those that come are compared."""

    class Transformed(Listed):
        def __getitem__(self, i):
            image, label = super().__getitem__(i)
            return image, (label + 1) % models.N_CLASSES

    def goes_on(images, done):
        return [
            label
            for _, labels in remaining(Reading(DataLoader(images, batch_size=4)), (0, 1), done)
            for label in labels
        ]

    data, trail = models.data(9), Trail(Done())
    trail.add(data[0][:6], (data[1][:6] + 1) % models.N_CLASSES)
    images = Transformed(data)
    assert goes_on(images, trail.done()) == [*(data[1][6:] + 1) % models.N_CLASSES]
    assert {3, 5} <= {*images.read}
    with pytest.raises(ValueError, match="got other labels"):
        goes_on(Transformed(changed("label", 3, data)), trail.done())
    # where they are listed, only the sample, the last and what follows are read
    trail, images = Trail(Done()), Listed(data)
    trail.add(data[0][:6], data[1][:6])
    goes_on(images, trail.done())
    assert images.read == [0, 1, 2, 3, 1, 2, 4, 5, 6, 7, 8]  # the first batch, for the proof


def test_what_an_old_file_does_not_say_is_not_compared():
    data = models.data(9)
    trail = Trail(Done())
    trail.add(data[0][:6], data[1][:6])
    old = Done(6, trail.done().last, labels=None, sample=None)
    for make in KINDS.values():
        reading = Reading(make(changed("label", 2, data)))
        assert sum(len(labels) for _, labels in remaining(reading, (0, 1), old)) == 3
        with pytest.raises(ValueError, match="got another one"):
            [*remaining(Reading(make(changed("label", 5, data))), (0, 1), old)]
    going_on = Trail(old)
    going_on.add(data[0][6:], data[1][6:])
    assert going_on.done() == Done(9, image_digest(data[0][-1:], data[1][-1:]), labels=None, sample=None)
