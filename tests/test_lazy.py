import importlib
import importlib.util
import sys

import pytest

from resnet_lesion.lazy import attach_stub, when_imported


@pytest.fixture
def library(tmp_path, monkeypatch):
    """A package that is not imported yet."""
    (tmp_path / "their_library").mkdir()
    (tmp_path / "their_library" / "__init__.py").write_text("VALUE = 3\n")
    (tmp_path / "their_library" / "part.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    yield "their_library"
    for name in [name for name in sys.modules if name.startswith("their_library")]:
        del sys.modules[name]


@pytest.fixture(autouse=True)
def _finders():
    before = sys.meta_path.copy()
    yield
    sys.meta_path[:] = before


def test_something_is_done_once_when_a_library_has_been_imported(library):
    seen = []
    when_imported(library, lambda: seen.append(sys.modules[library].VALUE))
    assert importlib.util.find_spec(library).loader.get_filename().endswith("__init__.py")
    assert seen == []
    part = importlib.import_module(f"{library}.part")
    assert seen == [3]
    assert part.__name__ == f"{library}.part"
    module = importlib.reload(sys.modules[library])
    assert seen == [3]
    # and to see nothing is left of it
    assert type(module.__loader__) is type(module.__spec__.loader) is type(part.__loader__)


def test_at_once_if_it_has_been_imported():
    seen = []
    when_imported("sys", lambda: seen.append(1))
    assert seen == [1]


def test_several_things_may_wait_for_a_library(library):
    seen = []
    for i in range(3):
        when_imported(library, lambda i=i: seen.append(i))
    importlib.import_module(library)
    assert sorted(seen) == [0, 1, 2]


def test_a_library_that_fails_may_be_imported_again(library, tmp_path):
    seen = []
    when_imported(library, lambda: seen.append(1))
    source = tmp_path / library / "__init__.py"
    source.write_text("1 / 0\n")
    with pytest.raises(ZeroDivisionError):
        importlib.import_module(library)
    assert seen == []
    source.write_text("VALUE = 10\n")
    importlib.import_module(library)
    assert seen == [1]


def test_a_library_that_is_not_there():
    when_imported("no_such_library", lambda: pytest.fail("it is not there"))
    assert importlib.util.find_spec("no_such_library") is None
    with pytest.raises(ModuleNotFoundError, match="No module named 'no_such_library'"):
        importlib.import_module("no_such_library")


def test_names_of_a_stub(library, tmp_path, monkeypatch):
    package = importlib.import_module(library)
    (tmp_path / library / "__init__.pyi").write_text(
        f"from {library} import part as part\nfrom {library}.part import answer as answer\n__version__: str\n"
    )
    (tmp_path / library / "part.py").write_text("answer = object()\n")
    getattr_, dir_, names = attach_stub(library, package.__file__)
    assert names == ["answer", "part"]
    assert {"answer", "part", "VALUE"} <= set(dir_())
    assert f"{library}.part" not in sys.modules
    assert getattr_("part") is sys.modules[f"{library}.part"]
    assert getattr_("answer") is package.part.answer is package.answer
    with pytest.raises(AttributeError, match=r"^module 'their_library' has no attribute 'nothing'$"):
        getattr_("nothing")
