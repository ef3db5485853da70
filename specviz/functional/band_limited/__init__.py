"""Convolution that leaves out high frequencies, computing only the ones it keeps (Dziedzic et al. 2019).

`band.py` says which frequencies stay, `plan.py` at which sizes, `choice.py` which algorithm is the fastest, `conv.py`
what the result is.
"""

from specviz.functional.band_limited.band import band_for_compression, band_for_energy, check_band, energy_by_band
from specviz.functional.band_limited.choice import ALGORITHMS, Algorithm
from specviz.functional.band_limited.conv import band_limited_conv1d, band_limited_conv2d, convolve, same_padding
from specviz.functional.band_limited.plan import Axis, Plan, fast_size, published_floats

__all__ = [
    "ALGORITHMS",
    "Algorithm",
    "Axis",
    "Plan",
    "band_for_compression",
    "band_for_energy",
    "band_limited_conv1d",
    "band_limited_conv2d",
    "check_band",
    "convolve",
    "energy_by_band",
    "fast_size",
    "published_floats",
    "same_padding",
]
