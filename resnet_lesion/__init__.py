"""Lesion studies and path gradients of residual networks, as Captum algorithms with xarray results."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resnet_lesion.lazy import attach_stub, when_imported

if TYPE_CHECKING:
    import xarray

    from resnet_lesion.reports.accessor import LesionAccessor

_public_name, __dir__, __all__ = attach_stub(__name__, __file__)


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        return version("resnet-lesion")
    return _public_name(name)


def _register_models() -> None:
    from resnet_lesion.blocks.registry import load_adapters

    load_adapters()  # timm's among them, which register the paper's networks with timm


def _register_accessor() -> None:
    import xarray

    xarray.register_dataset_accessor("lesion")(_lesion)  # type: ignore[no-untyped-call]


def _lesion(dataset: xarray.Dataset) -> LesionAccessor:
    """Return the figures and scalars of a result (:class:`LesionAccessor`)."""
    # not before it is used: it imports modules that may be importing xarray while that is registered
    from resnet_lesion.reports.accessor import LesionAccessor

    return LesionAccessor(dataset)


when_imported("timm", _register_models)
when_imported("xarray", _register_accessor)
