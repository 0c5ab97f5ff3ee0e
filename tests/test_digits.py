import pytest
import torch

from resnet_lesion.digits import load_digits


def test_digits_are_inputs_for_the_embedded_network():
    for split, n in (("train", 1257), ("test", 540)):
        inputs, targets = load_digits(split)
        assert inputs.shape == (n, 3, 8, 8)
        assert inputs.dtype == torch.float32
        assert inputs.is_contiguous()
        assert (inputs.min(), inputs.max()) == (-1, 1)
        assert (inputs[:, :1] == inputs).all()
        assert targets.dtype == torch.int64
        assert targets.unique().tolist() == [*range(10)]


def test_the_split_is_fixed_and_stratified():
    (train, train_targets), (test, test_targets) = load_digits("train"), load_digits("test")
    assert torch.equal(test, load_digits()[0])
    shares = [targets.bincount() / len(targets) for targets in (train_targets, test_targets)]
    assert (shares[0] - shares[1]).abs().max() < 0.002
    seen = {image.numpy().tobytes() for image in train}
    assert not any(image.numpy().tobytes() in seen for image in test)


def test_another_split_is_refused():
    with pytest.raises(ValueError, match="split='train' or 'test', got 'validation'"):
        load_digits("validation")
