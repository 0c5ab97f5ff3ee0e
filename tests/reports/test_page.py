import base64
import io
from html.parser import HTMLParser

import numpy as np
import pytest
import xarray as xr
from helpers import synthetic
from PIL import Image

from resnet_lesion.plots.catalogue import figures
from resnet_lesion.reports.findings import findings
from resnet_lesion.reports.page import write_report
from resnet_lesion.reports.tables import table_of
from resnet_lesion.results.quantities import groups


class Page(HTMLParser):
    """What a browser would load and show."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.images, self.links, self.words = [], {}, set(), []
        self.feed(path.read_text())

    def handle_starttag(self, tag, attrs):
        named = dict(attrs)
        self.tags.append(tag)
        if tag == "img":
            self.images[named["alt"]] = named["src"]
        self.links |= {named[name] for name in ("href", "src") if name in named and tag != "img"}

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture
def page(tmp_path):
    def write(result):
        write_report(result, tmp_path / "report.html")
        return Page(tmp_path / "report.html")

    return write


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Give a tree of all results, and its page."""
    tree, path = synthetic.tree(), tmp_path_factory.mktemp("study") / "report.html"
    tree.attrs["history"] = "2026-01-01T00:00:00: resnet-lesion study mine --checkpoint <mine>.pth"
    write_report(tree, path)
    return tree, Page(path)


def test_every_figure_sentence_and_number_is_on_the_page(study):
    tree, shown = study
    assert set(shown.images) == set(figures(tree))
    for _, dataset in groups(tree):
        assert set(findings(dataset)) <= set(shown.words)
        assert {cell for row in table_of(dataset) for cell in row if cell} <= set(shown.words)
        assert str(dataset.attrs["weights_sha256"]) in shown.words


def test_the_page_stands_alone(study):
    _, shown = study
    assert not {"script", "link", "iframe"} & set(shown.tags)
    assert all(link.startswith("#") for link in shown.links)
    for source in shown.images.values():
        kind, _, data = source.partition(",")
        assert kind == "data:image/png;base64"
        assert Image.open(io.BytesIO(base64.b64decode(data))).size == (1200, 675)


def test_the_page_begins_with_where_it_came_from(study):
    tree, words = study[0], study[1].words
    before = words[: words.index(next(iter(tree.children)))]
    assert {tree.attrs["history"], "data", tree["deletion"].attrs["data"]} <= set(before)


def test_numbers_are_aligned_in_tables_but_not_where_it_came_from(page, tmp_path):
    page(synthetic.deletion().assign_attrs(data="540 images"))
    source = (tmp_path / "report.html").read_text()
    assert "<td>540 images</td>" in source
    assert '<td class="number">540 images</td>' not in source
    assert '<td class="number">0.500</td>' in source


def test_a_single_dataset(page):
    shown = page(synthetic.deletion())
    assert set(shown.images) == {"error_by_block"}
    assert "nav" not in shown.tags


def test_figures_of_several_groups_have_their_own_section(page):
    one = synthetic.deletion()
    shown = page(xr.DataTree.from_dict({"a/deletion": one, "b/deletion": one}))
    assert "deletion-compared" in shown.images
    assert "#deletion-compared" in shown.links


def test_attributes_are_text_not_markup(page):
    dataset = synthetic.deletion().assign_attrs(model="<script>alert(1)</script>")
    shown = page(dataset)
    assert "script" not in shown.tags
    assert "<script>alert(1)</script>" in shown.words


def test_a_page_that_cannot_be_written_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match="nothing to draw"):
        write_report(xr.Dataset({"x": ("y", np.arange(3))}), tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []
