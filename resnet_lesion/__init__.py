"""Lesion studies and path gradients of residual networks, as Captum algorithms with xarray results."""

from resnet_lesion.branch import Branch as Branch
from resnet_lesion.branch import find_branch as find_branch
from resnet_lesion.branch import load_adapters as _load_adapters
from resnet_lesion.branch import register_adapter as register_adapter
from resnet_lesion.errors import AdapterError as AdapterError
from resnet_lesion.network import ResidualNetwork as ResidualNetwork
from resnet_lesion.network import wrap as wrap

_load_adapters()
