"""Well-known networks, each defined once and built on images, band-limited, or as SpecNet.

net = sv.models.vgg16(10)                                                  # VGG-16 with batch norm, for CIFAR
twin = sv.models.vgg16(10, activation="tanh")                              # SpecNet's spatial baseline
spec = sv.models.vgg16(10, convolution="specnet", beta=1.0)                # Spec-VGG-16
band = sv.models.resnet18(10, convolution="band-limited", compression=0.5)

and the papers' own: Rippel's three nets, Wood & Larson's, and the fully convolutional net for time series. For volumes
there is a U-Net, `unet3d`.
"""

from specviz.models.beta import set_beta
from specviz.models.densenet import densenet40, densenet121, densenet169
from specviz.models.mlp import mlp
from specviz.models.plain import alexnet, lenet, vgg7, vgg11, vgg16
from specviz.models.resnet import resnet9, resnet18
from specviz.models.rippel import rippel_deep, rippel_generic, rippel_pooling
from specviz.models.seen import frequencies_seen
from specviz.models.series import fcn
from specviz.models.unet import unet3d
from specviz.models.wood_larson import wood_larson

__all__ = [
    "alexnet",
    "densenet40",
    "densenet121",
    "densenet169",
    "fcn",
    "frequencies_seen",
    "lenet",
    "mlp",
    "resnet9",
    "resnet18",
    "rippel_deep",
    "rippel_generic",
    "rippel_pooling",
    "set_beta",
    "unet3d",
    "vgg7",
    "vgg11",
    "vgg16",
    "wood_larson",
]

BUILDERS = tuple(
    name for name in __all__ if name not in ("frequencies_seen", "set_beta", "unet3d")
)  # of networks that classify, as a training config names them
