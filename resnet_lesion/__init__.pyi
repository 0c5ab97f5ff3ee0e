"""The public names, and where each is defined; ``__init__.py`` imports them from there when they are asked for."""

from . import digits as digits
from . import plots as plots
from . import testing as testing
from .acceleration.accelerate import Acceleration as Acceleration
from .acceleration.accelerate import accelerate as accelerate
from .analyzers.block_statistics import BlockStatistics as BlockStatistics
from .analyzers.deletion import Deletion as Deletion
from .analyzers.effective_path import EffectivePath as EffectivePath
from .analyzers.evaluation import evaluate as evaluate
from .analyzers.path_gradient import PathGradient as PathGradient
from .analyzers.reorder import Reorder as Reorder
from .analyzers.study import study as study
from .analyzers.support import Support as Support
from .analyzers.support import supported as supported
from .analyzers.support import supported_models as supported_models
from .blocks.branch import Branch as Branch
from .blocks.chain import Arguments as Arguments
from .blocks.chain import Chain as Chain
from .blocks.chain import Function as Function
from .blocks.chain import Plain as Plain
from .blocks.chain import Residual as Residual
from .blocks.registry import find_branch as find_branch
from .blocks.registry import register_adapter as register_adapter
from .errors import AdapterError as AdapterError
from .errors import PathsError as PathsError
from .network.paths import path_counts as path_counts
from .network.paths import path_fraction as path_fraction
from .network.paths import remaining_fraction as remaining_fraction
from .network.residual_network import ResidualNetwork as ResidualNetwork
from .network.residual_network import wrap as wrap
from .reports.accessor import LesionAccessor as LesionAccessor
from .results.storage import open as open
from .results.storage import save as save
from .runs.merging import merge as merge
from .training.loop import train as train
from .training.recipe import Recipe as Recipe

__version__: str
