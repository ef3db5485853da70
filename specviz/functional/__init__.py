"""Spectral operations as plain functions, imported as `SF`."""

from specviz.functional.activation import activate
from specviz.functional.band_limited import (
    band_limited_conv1d,
    band_limited_conv2d,
    band_limited_conv3d,
    band_limited_conv_transpose1d,
    band_limited_conv_transpose2d,
    band_limited_conv_transpose3d,
)
from specviz.functional.batch_norm import spectral_batch_norm2d
from specviz.functional.parametric import parametric_bank, parametric_spectral_conv2d
from specviz.functional.specnet import specnet_block2d, specnet_pixel_block2d, weight_gain
from specviz.functional.spectral_param import filters_from_parameters, spectral_parameters
from specviz.functional.spectral_pool import (
    frequency_dropout1d,
    frequency_dropout2d,
    frequency_dropout3d,
    spectral_pad1d,
    spectral_pad2d,
    spectral_pad3d,
    spectral_pool1d,
    spectral_pool2d,
    spectral_pool3d,
)
from specviz.functional.thresholding import compress, count_kept, energy_kept, psnr, share_kept, threshold

__all__ = [
    "activate",
    "band_limited_conv1d",
    "band_limited_conv2d",
    "band_limited_conv3d",
    "band_limited_conv_transpose1d",
    "band_limited_conv_transpose2d",
    "band_limited_conv_transpose3d",
    "compress",
    "count_kept",
    "energy_kept",
    "filters_from_parameters",
    "frequency_dropout1d",
    "frequency_dropout2d",
    "frequency_dropout3d",
    "parametric_bank",
    "parametric_spectral_conv2d",
    "psnr",
    "share_kept",
    "specnet_block2d",
    "specnet_pixel_block2d",
    "spectral_batch_norm2d",
    "spectral_pad1d",
    "spectral_pad2d",
    "spectral_pad3d",
    "spectral_parameters",
    "spectral_pool1d",
    "spectral_pool2d",
    "spectral_pool3d",
    "threshold",
    "weight_gain",
]
