"""``scripts/train_digits.py`` trains, and writes weights that the network takes."""

import runpy
import sys
from pathlib import Path

import timm
import torch
from safetensors.torch import load_file

from resnet_lesion import digits

SCRIPT = Path(__file__).parents[2] / "scripts/train_digits.py"


def test_images_are_shifted_by_up_to_one_pixel():
    shifted = runpy.run_path(str(SCRIPT))["shifted"]
    images = torch.arange(3 * 64.0).reshape(3, 8, 8).expand(40, 3, 8, 8)
    torch.manual_seed(0)
    moved, targets = shifted([(image, torch.tensor(i)) for i, image in enumerate(images)])
    assert targets.tolist() == list(range(40))
    seen = set()
    for image in moved:
        # a pixel away from the edge says by how much: rows are 8 apart
        down, right = divmod(int(image[0, 3, 3]) - 9 * 2, 8)
        seen.add((down - 1, right - 1))
        for y in range(8):
            for x in range(8):
                at = min(max(y + down - 1, 0), 7), min(max(x + right - 1, 0), 7)
                assert torch.equal(image[:, y, x], images[0, :, *at])
    assert seen == {(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1)}


def test_it_trains_and_writes_half_precision(tmp_path, monkeypatch, capsys):
    create, load = timm.create_model, digits.load_digits
    monkeypatch.setattr(timm, "create_model", lambda _name: create("cifar_preactresnet38"))
    monkeypatch.setattr(digits, "load_digits", lambda split: tuple(part[:40] for part in load(split)))
    out = tmp_path / "digits.safetensors"
    monkeypatch.setattr(sys, "argv", ["train_digits.py", "--epochs", "2", "--batch-size", "16", "--out", str(out)])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    assert f"{out}: " in capsys.readouterr().out
    weights = load_file(out)
    assert {tensor.dtype for tensor in weights.values()} == {torch.float16, torch.int64}
    steps = {int(tensor) for name, tensor in weights.items() if name.endswith("num_batches_tracked")}
    assert steps == {2 * 2}  # epochs of two whole batches
    create("cifar_preactresnet38").load_state_dict(weights)
