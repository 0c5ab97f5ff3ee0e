"""Adapters for timm's residual blocks, and the paper's networks registered with timm."""

from resnet_lesion_timm import byobnet as byobnet
from resnet_lesion_timm import cifar as cifar
from resnet_lesion_timm import convnext as convnext
from resnet_lesion_timm import cspnet as cspnet
from resnet_lesion_timm import efficientnet_blocks as efficientnet_blocks
from resnet_lesion_timm import inception_resnet_v2 as inception_resnet_v2
from resnet_lesion_timm import nfnet as nfnet
from resnet_lesion_timm import regnet as regnet
from resnet_lesion_timm import res2net as res2net
from resnet_lesion_timm import resnest as resnest
from resnet_lesion_timm import resnet as resnet
from resnet_lesion_timm import resnetv2 as resnetv2
from resnet_lesion_timm import senet as senet
from resnet_lesion_timm import sknet as sknet
from resnet_lesion_timm import tresnet as tresnet
from resnet_lesion_timm import vgg as vgg
from resnet_lesion_timm import vision_transformer as vision_transformer
