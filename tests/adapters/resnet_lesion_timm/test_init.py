import pkgutil
import shutil
import sys
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

import resnet_lesion_timm


@pytest.mark.parametrize("name", [module.name for module in pkgutil.iter_modules(resnet_lesion_timm.__path__)])
def test_a_file_is_left_out_only_where_timm_does_not_have_its_own(name):
    assert f"resnet_lesion_timm.{name}" in sys.modules or find_spec(f"timm.models.{name}") is None


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Return a function that imports the package with these files in place of its own."""
    shutil.copy(Path(resnet_lesion_timm.__file__), tmp_path)

    def load(**files):
        for name, text in files.items():
            (tmp_path / f"{name}.py").write_text(text)
            monkeypatch.delitem(sys.modules, f"some_adapters.{name}", raising=False)
        spec = spec_from_file_location(
            "some_adapters", tmp_path / "__init__.py", submodule_search_locations=[str(tmp_path)]
        )
        module = module_from_spec(spec)
        monkeypatch.setitem(sys.modules, "some_adapters", module)
        spec.loader.exec_module(module)
        return module

    yield load
    for name in [name for name in sys.modules if name.startswith("some_adapters.")]:
        del sys.modules[name]


@pytest.mark.parametrize(
    "lacks",
    [
        "from timm.models.of_the_future import Block",
        "import timm.models.of_the_future",
        "from timm.models import of_the_future",
        "from timm.models.resnet import OfTheFuture",
    ],
)
def test_what_timm_lacks_takes_nothing_else_away(package, lacks):
    found = package(a="loaded = True", b=f"{lacks}\nloaded = True", c="loaded = True")
    assert [hasattr(getattr(found, name, None), "loaded") for name in "abc"] == [True, False, True]


@pytest.mark.parametrize(
    ("mistake", "error"),
    [
        ("from resnet_lesion import NoSuchThing", ImportError),
        ("from some_adapters._parts import last", ImportError),
        ("import a_package_that_is_not_installed", ImportError),
        ("from timm_of_another import Block", ImportError),
        ("import timm; timm.models.resnet.Misspelt", AttributeError),
        ("raise ImportError('without a name')", ImportError),
        ("1 / 0", ZeroDivisionError),
    ],
)
def test_a_mistake_of_ours_is_an_error(package, mistake, error):
    with pytest.raises(error):
        package(a=mistake)
