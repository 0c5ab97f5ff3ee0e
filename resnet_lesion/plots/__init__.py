"""Every figure by name, drawn on the axes given or on new ones. Below: results."""

from resnet_lesion.plots.catalogue import available as available
from resnet_lesion.plots.catalogue import figures as figures
from resnet_lesion.plots.catalogue import save_figures as save_figures
from resnet_lesion.plots.lesions import block_statistic as block_statistic
from resnet_lesion.plots.lesions import compare_deletions as compare_deletions
from resnet_lesion.plots.lesions import error_by_block as error_by_block
from resnet_lesion.plots.lesions import error_by_kendall_tau as error_by_kendall_tau
from resnet_lesion.plots.lesions import error_by_lesion as error_by_lesion
from resnet_lesion.plots.lesions import error_by_number_deleted as error_by_number_deleted
from resnet_lesion.plots.lesions import training_curves as training_curves
from resnet_lesion.plots.paths import effective_paths as effective_paths
from resnet_lesion.plots.paths import layer_gradient as layer_gradient
from resnet_lesion.plots.paths import mean_gradient_by_length as mean_gradient_by_length
from resnet_lesion.plots.paths import path_lengths as path_lengths
from resnet_lesion.plots.paths import remaining_paths as remaining_paths
from resnet_lesion.plots.paths import sum_gradient_by_length as sum_gradient_by_length
