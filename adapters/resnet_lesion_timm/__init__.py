"""Adapters for timm's residual blocks, a file for each of timm's, and the paper's networks registered with timm."""

from importlib import import_module
from importlib.util import find_spec
from pkgutil import iter_modules

# files that the oldest timm of pyproject.toml does not have yet: without the file there are no such blocks either
_YOUNGER = ("iformer",)

for _module in iter_modules(__path__):
    if _module.name not in _YOUNGER or find_spec(f"timm.models.{_module.name}") is not None:
        import_module(f"{__name__}.{_module.name}")
