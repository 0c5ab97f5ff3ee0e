"""The public names, and where each is defined; ``__init__.py`` imports them from there when they are asked for."""

from resnet_lesion import digits as digits
from resnet_lesion import plots as plots
from resnet_lesion import testing as testing
from resnet_lesion.acceleration.accelerate import Acceleration as Acceleration
from resnet_lesion.acceleration.accelerate import accelerate as accelerate
from resnet_lesion.analyzers.block_statistics import BlockStatistics as BlockStatistics
from resnet_lesion.analyzers.deletion import Deletion as Deletion
from resnet_lesion.analyzers.effective_path import EffectivePath as EffectivePath
from resnet_lesion.analyzers.evaluation import evaluate as evaluate
from resnet_lesion.analyzers.path_gradient import PathGradient as PathGradient
from resnet_lesion.analyzers.reorder import Reorder as Reorder
from resnet_lesion.analyzers.study import study as study
from resnet_lesion.analyzers.support import Support as Support
from resnet_lesion.analyzers.support import supported as supported
from resnet_lesion.analyzers.support import supported_models as supported_models
from resnet_lesion.blocks.branch import Branch as Branch
from resnet_lesion.blocks.chain import Arguments as Arguments
from resnet_lesion.blocks.chain import Chain as Chain
from resnet_lesion.blocks.chain import Function as Function
from resnet_lesion.blocks.chain import Plain as Plain
from resnet_lesion.blocks.chain import Residual as Residual
from resnet_lesion.blocks.registry import find_branch as find_branch
from resnet_lesion.blocks.registry import register_adapter as register_adapter
from resnet_lesion.errors import AdapterError as AdapterError
from resnet_lesion.errors import PathsError as PathsError
from resnet_lesion.network.paths import path_counts as path_counts
from resnet_lesion.network.paths import path_fraction as path_fraction
from resnet_lesion.network.paths import remaining_fraction as remaining_fraction
from resnet_lesion.network.residual_network import ResidualNetwork as ResidualNetwork
from resnet_lesion.network.residual_network import wrap as wrap
from resnet_lesion.reports.accessor import LesionAccessor as LesionAccessor
from resnet_lesion.results.storage import open as open
from resnet_lesion.results.storage import save as save
from resnet_lesion.runs.merging import merge as merge
from resnet_lesion.training.loop import train as train
from resnet_lesion.training.recipe import Recipe as Recipe

__version__: str
