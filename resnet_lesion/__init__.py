"""Lesion studies and path gradients of residual networks, as Captum algorithms with xarray results."""

from resnet_lesion import testing as testing
from resnet_lesion.acceleration import Acceleration as Acceleration
from resnet_lesion.acceleration import accelerate as accelerate
from resnet_lesion.accessor import LesionAccessor as LesionAccessor
from resnet_lesion.block_statistics import BlockStatistics as BlockStatistics
from resnet_lesion.branch import Branch as Branch
from resnet_lesion.branch import find_branch as find_branch
from resnet_lesion.branch import load_adapters as _load_adapters
from resnet_lesion.branch import register_adapter as register_adapter
from resnet_lesion.chain import Arguments as Arguments
from resnet_lesion.chain import Chain as Chain
from resnet_lesion.chain import Function as Function
from resnet_lesion.chain import Plain as Plain
from resnet_lesion.chain import Residual as Residual
from resnet_lesion.deletion import Deletion as Deletion
from resnet_lesion.effective_path import EffectivePath as EffectivePath
from resnet_lesion.errors import AdapterError as AdapterError
from resnet_lesion.errors import PathsError as PathsError
from resnet_lesion.evaluation import evaluate as evaluate
from resnet_lesion.merging import merge as merge
from resnet_lesion.network import ResidualNetwork as ResidualNetwork
from resnet_lesion.network import wrap as wrap
from resnet_lesion.path_gradient import PathGradient as PathGradient
from resnet_lesion.paths import path_counts as path_counts
from resnet_lesion.paths import path_fraction as path_fraction
from resnet_lesion.paths import remaining_fraction as remaining_fraction
from resnet_lesion.reorder import Reorder as Reorder
from resnet_lesion.storage import open as open
from resnet_lesion.storage import save as save
from resnet_lesion.study import study as study
from resnet_lesion.support import Support as Support
from resnet_lesion.support import supported as supported
from resnet_lesion.support import supported_models as supported_models
from resnet_lesion.training import Recipe as Recipe
from resnet_lesion.training import train as train

_load_adapters()
