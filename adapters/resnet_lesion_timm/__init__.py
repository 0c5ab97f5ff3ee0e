"""Adapters for timm's residual blocks, a file for each of timm's, and the paper's networks registered with timm."""

from importlib import import_module
from pkgutil import iter_modules

for _module in iter_modules(__path__):
    try:
        import_module(f"{__name__}.{_module.name}")
    except ImportError as error:
        # timm's file, or its class, is younger than the installed timm, which then has no such blocks to describe
        if (error.name or "").partition(".")[0] != "timm":
            raise
