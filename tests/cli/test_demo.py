import pytest
import torch
from helpers.command import run

import resnet_lesion as rl
from resnet_lesion.cli import demo


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(demo, "_N_DELETED", (1, 10))
    monkeypatch.setattr(demo, "_N_SWAPS", (1, 24))
    monkeypatch.setattr(demo, "_N_PATHS", 2)
    monkeypatch.setattr(demo, "_N_GRADIENT_IMAGES", 2)


def test_demo_writes_one_file_and_figures_and_says_what_they_show(tmp_path, quick, capsys):
    out = tmp_path / "new" / "folder"
    assert run("demo", "--out", out, "--num-samples", 20, "--n-draws", 2, "--seed", 4) == 0
    tree = rl.open(out / "study.nc")
    deletion = tree["deletion"].to_dataset()
    assert deletion.sizes["layer"] == 54
    assert int(deletion.total) == 20
    assert deletion.attrs["model"] == "cifar_preactresnet110.digits"
    assert deletion.attrs["data"] == "20 images of shape 3x8x8 from scikit-learn's digits, test split"
    figures = {path.stem.partition("-")[2] for path in out.glob("*.png")}
    assert figures >= {
        "error_by_block",
        "error_by_number_deleted",
        "error_by_kendall_tau",
        "remaining_paths",
        "path_lengths",
        "mean_gradient_by_length",
        "effective_paths",
        "layer_gradient",
    }
    *lines, files = capsys.readouterr().out.splitlines()
    subjects = ["One block deleted", "Many blocks deleted", "Paths left", "Blocks swapped", "Effective paths"]
    assert [line.startswith(subject) for line, subject in zip(lines, subjects, strict=True)] == [True] * 5
    assert str(out) in files
    # what is said is what was measured
    worst = deletion.error.max().item()
    layer = deletion.layer[int(deletion.error.argmax("layer"))].item()
    assert lines[0].endswith(f"the worst is {100 * worst:.3g} %, without {layer}.")
    assert lines == demo._findings(tree)


def test_the_number_of_threads_is_given_back(monkeypatch):
    threads = []

    def fail(*_, **__):
        threads.append(torch.get_num_threads())
        raise ZeroDivisionError

    monkeypatch.setattr("resnet_lesion.analyzers.study.study", fail)
    torch.set_num_threads(2)
    try:
        with pytest.raises(ZeroDivisionError):
            run("demo", "--debug")
        assert threads == [1]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


def test_what_is_wrong(refused):
    assert "expected a folder to write to, got the file 'text.nc'" in refused("demo", "--out", "text.nc")
    message = "expected a number of samples from 1 to 540, all images there are, got 541"
    assert message in refused("demo", "--num-samples", 541)
