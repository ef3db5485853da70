"""SpecNet's convolution block as a function, and the spread of weights that it needs (Guan et al.)."""

from specviz.functional.specnet.block2d import PADDINGS, STORAGES, Padding, Storage, check_options, specnet_block2d
from specviz.functional.specnet.gain import weight_gain

__all__ = ["PADDINGS", "STORAGES", "Padding", "Storage", "check_options", "specnet_block2d", "weight_gain"]
