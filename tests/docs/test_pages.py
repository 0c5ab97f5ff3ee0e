"""The documentation's tables are those of its results, and its example is a user's adapter that is right."""

import re
import zipfile
from pathlib import Path

import option_a_resnet
import pytest
import torch
import write_tables

import resnet_lesion as rl
from resnet_lesion.testing import check_adapter

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared"
WEIGHTS = SHARED / "models" / "resnet20-12fca82f.th"
IMAGES = SHARED / "data" / "cifar10-jpeg-test.zip"


def test_the_table_of_single_deletions_is_that_of_the_results():
    results = {name: rl.open(file) for name, file in write_tables.OPTION_A.items()}
    assert write_tables.section(write_tables.ADAPTER_PAGE, "option-a") == write_tables.deletion_table(results)
    assert all(int(result.total) == 10_000 for result in results.values())


def test_sections_are_replaced_between_their_markers(tmp_path):
    page = tmp_path / "page.md"
    start, end = "<!-- table x: written by docs/helpers/write_tables.py -->", "<!-- end of table x -->"
    page.write_text(f"before\n{start}\nold\n{end}\nafter\n")
    write_tables.write_section(page, "x", write_tables.table(["a", "b"], [["1", "2|3"]]))
    assert page.read_text() == f"before\n{start}\n| a | b |\n| --- | --- |\n| 1 | 2\\|3 |\n{end}\nafter\n"
    assert write_tables.section(page, "x").splitlines()[-1] == "| 1 | 2\\|3 |"


def test_the_worked_examples_adapter():
    model = option_a_resnet.CifarResNet(blocks_per_stage=2)
    network = rl.wrap(model)
    assert network.layers == tuple(f"layer{stage}.{i}" for stage in (1, 2, 3) for i in (0, 1))
    assert network.is_downsampling.tolist() == [False, False, True, False, True, False]
    assert check_adapter(model, torch.randn(2, 3, 16, 16)) < 1e-12


def test_the_page_shows_the_code_that_runs():
    page = write_tables.ADAPTER_PAGE.read_text()
    shown = next(code for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "OptionABlock" in code)
    code = (ROOT / "docs" / "examples" / "option_a_resnet.py").read_text()
    code = re.sub(r'    """Its ReLU.*?"""\n', "", code)
    assert shown in code


@pytest.mark.skipif(not WEIGHTS.exists() or not IMAGES.exists(), reason="needs third-party weights and images")
def test_trained_weights_give_the_tables_figures(tmp_path):
    network = rl.wrap(option_a_resnet.load(WEIGHTS))
    with zipfile.ZipFile(IMAGES) as archive:
        archive.extractall(
            tmp_path, [name for name in archive.namelist() if name.endswith(("00.jpg", "33.jpg", "66.jpg"))]
        )
    result = rl.Deletion(network).analyze(option_a_resnet.images(tmp_path / "test"), show_progress=False)
    table = rl.open(write_tables.OPTION_A["ResNet-20"])
    assert int(result.total) == 300
    # 300 of the 10,000 images: four standard errors
    assert abs(result.error - table.error).max() < 4 * (0.25 / 300) ** 0.5
    assert abs(result.baseline_error - table.baseline_error) < 4 * (0.2 * 0.8 / 300) ** 0.5


GALLERY = sorted((ROOT / "docs" / "gallery").glob("*.md"))


@pytest.mark.parametrize("page", GALLERY, ids=[page.stem for page in GALLERY])
def test_no_figure_is_typed_on_a_page_of_the_gallery(page):
    prose = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    # what was done may be said, such as 23 of 54 blocks; what came out may not
    assert re.findall(r"\d+(?:\.\d+)? ?%|\b0\.\d+", prose) == []


PAGES = [*ROOT.glob("*.md"), *sorted((ROOT / "docs").rglob("*.md"))]


def missing(page):
    """List the files that a page links to or names, with their folder, but that are not there."""
    text = page.read_text()
    linked = [name for name in re.findall(r"\]\(([^)#:\s]+)[)#]", text) if not (page.parent / name).exists()]
    # from the root, or from the package on; foo is what nobody has written yet
    named = [name for name in re.findall(r"`((?:\w+/)+(?!foo\.)[\w*]+\.py)`", text) if not [*ROOT.glob(name)]]
    return linked + [name for name in named if not [*(ROOT / "resnet_lesion").glob(name)]]


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_the_files_that_a_page_names_exist(page):
    assert missing(page) == []


def test_a_file_that_is_gone_is_seen(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "[here](page.md), [gone](gone.md#part), `runs/run.py`, `runs/gone.py`, `tests/helpers/reference*.py`"
    )
    assert missing(page) == ["gone.md", "runs/gone.py"]
