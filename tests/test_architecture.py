"""Each folder is a layer: it imports itself and those below it. Each file has a test file of its name."""

import ast
from pathlib import Path

import architecture
import pytest
from architecture import LAYERS, PACKAGE, between_layers, circle, imports, right_below, upward

TESTS = Path(__file__).parent
FILES = imports()
FOLDERS = [layer for layer in LAYERS if (PACKAGE / layer).is_dir()]
HEAVY = {"timm", "torchvision", "transformers"}


def statements(path):
    return ast.parse(path.read_text()).body


def private(files):
    """List the names with an underscore that a file takes from another."""
    taken = [(file, other, name) for file, others in files.items() for other, names in others.items() for name in names]
    return [f"{file} takes {name} of {other}" for file, other, name in taken if name.startswith("_")]


def imported_at_once(nodes):
    """Yield the packages that a file imports when it is imported itself: not in a function, and not for types only."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module.partition(".")[0]
        elif isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            yield from imported_at_once(node.orelse)
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from imported_at_once(ast.iter_child_nodes(node))


def test_the_layers_are_the_folders_and_the_files_beside_them():
    assert sorted(LAYERS) == sorted(between_layers(FILES))


def test_no_import_runs_upwards():
    assert upward(FILES) == []


def test_no_circle():
    assert circle(FILES) == []
    assert circle(between_layers(FILES)) == []


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_says_in_one_line_what_it_is_and_what_is_right_below_it(folder):
    below = ", ".join(right_below(between_layers(FILES))[folder])
    line = (PACKAGE / folder / "__init__.py").read_text().partition("\n")[0]
    assert line == f'"""{architecture.about(folder)} Below: {below}."""'


def test_only_the_face_and_the_figures_hand_names_on():
    handing = [folder for folder in FOLDERS if len(statements(PACKAGE / folder / "__init__.py")) > 1]
    assert handing == ["plots"]


def test_a_name_with_an_underscore_stays_in_its_file():
    assert private(FILES) == []


def test_every_file_has_its_test_file():
    paths = [path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py") if path.name != "__init__.py"]
    expected = {path.with_name(f"test_{path.name}") for path in paths}
    missing = sorted(str(path) for path in expected if not (TESTS / path).exists())
    assert not missing, f"tests/ lacks {len(missing)} files: {', '.join(missing)}"


def test_the_core_imports_no_library_of_models_at_the_top_of_a_file():
    at_once = {path.relative_to(PACKAGE): set(imported_at_once(statements(path))) for path in PACKAGE.rglob("*.py")}
    assert {str(path): found & HEAVY for path, found in at_once.items() if found & HEAVY} == {}


@pytest.fixture
def planted(tmp_path):
    """Write a package ``house``, and read what its files import."""

    def make(files):
        for name, text in files.items():
            path = tmp_path / "house" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return imports(tmp_path / "house")

    return make


UPWARDS = {
    "in a function": "def f():\n    from house.roof.tiles import tile",
    "for types": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from house.roof.tiles import Tile",
    "relative": "from ..roof.tiles import tile",
    "relative, the file": "from ..roof import tiles",
    "the file": "from house.roof import tiles",
    "by its whole name": "import house.roof.tiles",
}


@pytest.mark.parametrize("line", UPWARDS.values(), ids=UPWARDS)
def test_an_import_upwards_is_seen(planted, line):
    files = planted({"roof/tiles.py": "", "cellar/stones.py": line})
    assert upward(files, ("roof", "cellar")) == ["cellar.stones imports roof.tiles"]
    assert upward(files, ("cellar", "roof")) == []


@pytest.mark.parametrize("line", ["import house", "from house import tile", "from .. import tile"])
def test_an_import_of_the_face_is_seen(planted, line):
    files = planted({"__init__.py": "", "cellar/stones.py": line})
    assert upward(files, ("__init__", "cellar")) == ["cellar.stones imports __init__"]


def test_a_stub_is_read_with_its_file(planted):
    files = planted(
        {"__init__.py": "import house.x.a", "__init__.pyi": "from house.y.b import c", "x/a.py": "", "y/b.py": ""}
    )
    assert files["__init__"] == {"x.a": set(), "y.b": {"c"}}


def test_circles_of_files_and_of_folders_are_seen(planted):
    files = planted({"x/a.py": "from house.y import b", "y/b.py": "from house.x.c import d", "x/c.py": ""})
    assert circle(files) == []
    assert set(circle(between_layers(files))) == {"x", "y"}
    files = planted({"x/a.py": "from house.x.b import f", "x/b.py": "def f():\n    from .a import g"})
    assert set(circle(files)) == {"x.a", "x.b"}


def test_a_private_name_is_seen(planted):
    files = planted({"x/a.py": "from house.x.b import _hidden, shown", "x/b.py": "_hidden = shown = 1"})
    assert private(files) == ["x.a takes _hidden of x.b"]


def test_what_is_reached_through_another_layer_is_not_right_below():
    between = {"runs": ["results", "network", "runs"], "results": ["network"], "network": ["errors"], "errors": []}
    assert right_below(between) == {"runs": ["results"], "results": ["network"], "network": ["errors"], "errors": []}


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("try:\n    import timm.data\nexcept ImportError:\n    pass", {"timm"}),
        ("class A:\n    from torchvision import io", {"torchvision"}),
        ("if TYPE_CHECKING:\n    import timm\nelse:\n    import transformers", {"transformers"}),
        ("def f():\n    import timm\nasync def g():\n    import timm", set()),
    ],
)
def test_what_is_imported_at_once_is_seen(code, found):
    assert set(imported_at_once(ast.parse(code).body)) == found
