"""Imports put off until they are needed: the package's own names, and what waits for another library."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType


def attach_stub(package: str, file: str) -> tuple[Callable[[str], object], Callable[[], list[str]], list[str]]:
    """Give a package the names that its stub imports, each imported when it is first asked for.

    The stub, ``__init__.pyi``, is what type checkers and editors read anyway, so that every name stands in one place.
    Scientific Python's SPEC 1 (https://scientific-python.org/specs/spec-0001) describes this.

    Args:
        package: The package's name.
        file: Its ``__init__.py``.

    Returns:
        The package's ``__getattr__``, ``__dir__`` and ``__all__`` (PEP 562).
    """
    stub = ast.parse(Path(file).with_suffix(".pyi").read_text(encoding="utf-8"))
    imports = [line for line in stub.body if isinstance(line, ast.ImportFrom)]
    homes = {alias.name: str(line.module) for line in imports for alias in line.names}

    def getattr_(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        if homes[name] == package:
            return import_module(f"{package}.{name}")
        value = getattr(import_module(homes[name]), name)
        setattr(sys.modules[package], name, value)  # from now on it is found without us
        return value

    return getattr_, lambda: sorted({*vars(sys.modules[package]), *homes}), sorted(homes)


def when_imported(library: str, then: Callable[[], None]) -> None:
    """Do something as soon as a library has been imported, by whomever; at once if it has been already.

    This is a hook on imports, as PEP 369 proposed them. Two registrations need it, whatever a program imports first:
    of models with timm, which users hand to timm by name rather than to us, and of the accessor with xarray. To import
    these libraries ourselves would cost every process a second and more, also one that only prints the command's help.

    Args:
        library: Name of a top-level module.
        then: What to do; it must not import what may be importing the library at that moment.
    """
    if library in sys.modules:
        then()
    else:
        sys.meta_path.insert(0, _Finder(library, then))


class _Finder(MetaPathFinder):
    """Finds one library where the other finders do."""

    def __init__(self, library: str, then: Callable[[], None]) -> None:
        self._library, self._then = library, then

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self._library:
            return None
        others = (finder for finder in sys.meta_path if finder is not self and hasattr(finder, "find_spec"))
        spec = next(filter(None, (finder.find_spec(fullname, path, target) for finder in others)), None)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, self._done)
        return spec

    def _done(self) -> None:
        # not before the library is there: others may look for its spec without importing it
        if self in sys.meta_path:
            sys.meta_path.remove(self)
            self._then()


class _Loader(Loader):
    """Loads a library as its own loader does, which the module then has."""

    def __init__(self, loader: Loader, done: Callable[[], None]) -> None:
        self._loader, self._done = loader, done

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        self._done()

    def __getattr__(self, name: str) -> object:
        return getattr(self._loader, name)
