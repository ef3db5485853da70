"""SpecNet's convolution block as a function, and the spread of weights that it needs (Guan et al.)."""

from specviz.functional.specnet.block2d import (
    PADDINGS,
    STORAGES,
    Padding,
    Storage,
    check_options,
    padded_size,
    specnet_block2d,
)
from specviz.functional.specnet.gain import weight_gain
from specviz.functional.specnet.pixels import THRESHOLDED, Thresholded, check_pixel_options, specnet_pixel_block2d

__all__ = [
    "PADDINGS",
    "STORAGES",
    "THRESHOLDED",
    "Padding",
    "Storage",
    "Thresholded",
    "check_options",
    "check_pixel_options",
    "padded_size",
    "specnet_block2d",
    "specnet_pixel_block2d",
    "weight_gain",
]
