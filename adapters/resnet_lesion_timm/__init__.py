"""Adapters for timm's residual blocks, and the paper's networks registered with timm."""

from resnet_lesion_timm import cifar as cifar
from resnet_lesion_timm import resnet as resnet
from resnet_lesion_timm import resnetv2 as resnetv2
