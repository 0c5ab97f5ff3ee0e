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
    """Finds one library where the finders behind it do, until that has been imported."""

    def __init__(self, library: str, then: Callable[[], None]) -> None:
        self._library, self._then, self._waiting = library, then, True

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self._library or not self._waiting:
            return None
        behind = [f for f in sys.meta_path[sys.meta_path.index(self) + 1 :] if hasattr(f, "find_spec")]
        spec = next(filter(None, (finder.find_spec(fullname, path, target) for finder in behind)), None)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, self._imported)
        return spec

    def _imported(self) -> None:
        # not when it has been found: others look for its spec without importing it. The finder stays in the list, as
        # another thread may be going through that
        if self._waiting:
            self._waiting = False
            self._then()


class _Loader(Loader):
    """Loads a library as its own loader does, which the module then has."""

    def __init__(self, loader: Loader, imported: Callable[[], None]) -> None:
        self._loader, self._imported = loader, imported

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        self._imported()

    def __getattr__(self, name: str) -> object:
        return getattr(self._loader, name)
