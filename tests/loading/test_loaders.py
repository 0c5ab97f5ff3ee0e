import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch.utils.data import IterableDataset, TensorDataset

from resnet_lesion.digits import load_digits
from resnet_lesion.loading.images import ImageSet, Source
from resnet_lesion.loading.loaders import choose_samples, shuffled_loader, subset_loader
from resnet_lesion.loading.models import untrained

CPU = torch.device("cpu")


@pytest.mark.parametrize("workers", [0, 2])
def test_training_images_are_shifted_mirrored_and_reproducible(archive, workers):
    model = timm.create_model("cifar_preactresnet38")
    loader = Source(str(archive), batch_size=4, workers=workers).training(model, CPU)
    assert len(loader) == 1  # the last two fill no batch

    def epoch(seed):
        torch.manual_seed(seed)
        ((inputs, targets),) = loader
        return inputs, targets

    (inputs, targets), (again, same), (other, _) = epoch(1), epoch(1), epoch(2)
    assert inputs.shape == (4, 3, 32, 32)
    assert torch.equal(inputs, again)
    assert torch.equal(targets, same)
    assert not torch.equal(inputs, other)
    whole = torch.cat([x for x, _ in Source(str(archive)).unchanged(model, CPU)])
    # each is one of the images or its mirror image, shifted by up to four pixels, black beyond its edge
    black = inputs.amin((0, 2, 3))[None, :, None, None]
    padded = torch.nn.functional.pad(torch.cat([whole, whole.flip(3)]) - black, (4, 4, 4, 4)) + black
    shifts = torch.stack([padded[:, :, y : y + 32, x : x + 32] for y in range(9) for x in range(9)])
    for image in inputs:
        assert (shifts - image).abs().flatten(2).amax(2).min() < 0.05


def test_digits_are_shifted_by_a_pixel_and_not_mirrored():
    source = Source("digits", batch_size=1257)
    model = untrained("cifar_preactresnet38", source.open(), 10)
    ((inputs, targets),) = source.training(model, CPU)
    images, labels = load_digits("train")
    assert sorted(targets.tolist()) == sorted(labels.tolist())
    padded = torch.nn.functional.pad(images, (1, 1, 1, 1), mode="replicate")
    shifts = torch.stack([padded[:, :, y : y + 8, x : x + 8] for y in range(3) for x in range(3)])
    for image, label in zip(inputs[:20], targets, strict=False):
        assert (shifts[:, labels == label] == image).flatten(2).all(2).any()


def test_a_subset_is_loaded_in_its_order(archive):
    model = timm.create_model("cifar_preactresnet38")
    whole = torch.cat([x for x, _ in Source(str(archive)).evaluation(model, CPU)])
    dataset = ImageSet(str(archive), "test").open()
    ((inputs, targets),) = subset_loader(dataset, [5, 0], model, batch_size=4, workers=0, device=CPU)
    assert targets.tolist() == [1, 0]
    assert torch.equal(inputs, whole[[5, 0]])


def test_images_are_scaled_for_training_and_evaluation(archive):
    source = Source(str(archive), batch_size=6, image_size=12)
    images = source.open()
    model = untrained("cifar_preactresnet38", images, 2, image_size=12)
    ((inputs, _),) = source.evaluation(model, CPU)
    original = torch.stack([torch.from_numpy(np.array(image)) for image, _ in ImageSet(str(archive), "test").open()])
    mean, std = (torch.tensor(model.pretrained_cfg[key])[:, None, None] for key in ("mean", "std"))
    for image, pixels in zip(inputs, original, strict=True):
        scaled = Image.fromarray(pixels.numpy()).resize((12, 12), Image.Resampling.BILINEAR)
        expected = (torch.from_numpy(np.array(scaled)).permute(2, 0, 1) / 255 - mean) / std
        torch.testing.assert_close(image, expected)
    ((changed, _),) = source.training(model, CPU)
    assert changed.shape[1:] == (3, 12, 12)


def grey(name, **options):
    return timm.create_model(name, in_chans=1, num_classes=2, **options)


@pytest.mark.parametrize("says", [True, False])
def test_a_model_for_grey_images_gets_grey_images(archive, says):
    # timm's config has three channels where only the model was made for one
    overlay = {"input_size": (1, 32, 32), "mean": (0.4,), "std": (0.25,)}
    model = grey("resnet18", pretrained_cfg_overlay=overlay if says else {"input_size": (3, 32, 32)})
    mean, std = (0.4, 0.25) if says else (sum(model.pretrained_cfg[key]) / 3 for key in ("mean", "std"))
    model.pretrained_cfg |= {"crop_pct": 1.0}
    ((inputs, _),) = Source(str(archive), batch_size=6).evaluation(model, CPU)
    for image, (pixels, _) in zip(inputs, ImageSet(str(archive), "test").open(), strict=True):
        expected = (torch.from_numpy(np.array(pixels.convert("L"))) / 255 - mean) / std
        torch.testing.assert_close(image, expected[None])
    ((changed, _),) = Source(str(archive), batch_size=6).training(model, CPU)
    assert changed.shape == (6, 1, 32, 32)
    assert model.eval()(inputs).shape == (6, 2)


def test_grey_images_of_a_data_set_go_into_a_model_for_colours_and_colours_into_one_for_grey_ones():
    for mode, model in (("L", timm.create_model("resnet18", num_classes=2)), ("RGB", grey("resnet18"))):
        stream = Stream(mode)
        ((inputs, _),) = shuffled_loader(stream, model, batch_size=4, workers=0, device=CPU)
        assert inputs.shape[:2] == (4, 3 if mode == "L" else 1)


def test_models_for_other_channels_are_refused(archive):
    model = timm.create_model("resnet18", pretrained_cfg_overlay={"input_size": (4, 32, 32)})
    with pytest.raises(ValueError, match="a model that takes grey or colour images, got one of 4 channels"):
        Source(str(archive)).evaluation(model, CPU)


def test_the_same_seed_chooses_the_same_samples():
    chosen = choose_samples(540, 50, seed=1)
    assert chosen == choose_samples(540, 50, seed=1)
    assert chosen != choose_samples(540, 50, seed=2)
    assert len(set(chosen)) == 50
    assert sorted(choose_samples(7, None, seed=0)) == list(range(7))


@pytest.mark.parametrize("num_samples", [0, -1, 8])
def test_there_are_only_so_many_samples(num_samples):
    with pytest.raises(ValueError, match=f"from 1 to 7, all images there are, got {num_samples}"):
        choose_samples(7, num_samples, seed=0)


class Stream(IterableDataset):
    """Images that come one after another, as timm reads tar files."""

    transform = None

    def __init__(self, mode="RGB"):
        self.mode = mode

    def __iter__(self):
        return ((self.transform(Image.new("RGB", (8, 8), (i, i, i)).convert(self.mode)), i) for i in range(4))

    def __len__(self):
        return 4


def test_all_images_or_some_come_in_random_order_and_a_stream_in_its_own():
    model, how = timm.create_model("cifar_preactresnet38"), {"batch_size": 8, "workers": 0, "device": CPU}
    digits = TensorDataset(torch.zeros(9, 1), torch.arange(9))

    def order(dataset, **options):
        ((_, targets),) = shuffled_loader(dataset, model, **options, **how)
        return targets.tolist()

    assert order(digits, num_samples=8, seed=1) == choose_samples(9, 8, seed=1)
    assert order(TensorDataset(*digits[:8]), seed=1) == choose_samples(8, None, seed=1)
    assert order(Stream()) == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="num_samples=2 needs a data set that can be indexed"):
        order(Stream(), num_samples=2)
