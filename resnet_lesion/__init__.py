"""Lesion studies and path gradients of residual networks, as Captum algorithms with xarray results."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING

import lazy_loader
from wrapt import when_imported

if TYPE_CHECKING:
    import xarray

    from resnet_lesion.reports.accessor import LesionAccessor

# the stub, which type checkers and editors read, is the list of public names; each is imported on first use
_public_name, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        return version("resnet-lesion")
    if name not in __all__:
        # as Python words it for any module, which adds the name that may have been meant
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name, obj=sys.modules[__name__])
    return _public_name(name)


def _lesion(dataset: xarray.Dataset) -> LesionAccessor:
    """Return the figures and scalars of a result (:class:`LesionAccessor`)."""
    # on first use: when xarray is registered, modules that this one needs may still be importing xarray
    from resnet_lesion.reports.accessor import LesionAccessor

    return LesionAccessor(dataset)


# Users pass our models' names to timm and open our results with xarray, whatever a program imports first. Importing the
# two libraries here would cost every process seconds, even one that only prints the command's help.
@when_imported("timm")
def _register_models(_timm: ModuleType) -> None:
    from resnet_lesion.blocks.registry import load_adapters

    load_adapters()  # including timm's, which register the paper's networks with timm


@when_imported("xarray")
def _register_accessor(xarray: ModuleType) -> None:
    xarray.register_dataset_accessor("lesion")(_lesion)
