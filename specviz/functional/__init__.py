"""Spectral operations as plain functions, imported as `SF`."""

from specviz.functional.band_limited import band_limited_conv1d, band_limited_conv2d
from specviz.functional.thresholding import compress, count_kept, energy_kept, psnr, share_kept, threshold

__all__ = [
    "band_limited_conv1d",
    "band_limited_conv2d",
    "compress",
    "count_kept",
    "energy_kept",
    "psnr",
    "share_kept",
    "threshold",
]
