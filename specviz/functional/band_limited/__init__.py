"""Convolution that leaves out high frequencies, computing only the ones it keeps (Dziedzic et al. 2019).

`band.py` says which frequencies stay, `plan.py` at which sizes, `choice.py` which algorithm is the fastest, `conv.py`
what the result is. `depth.py` adds the third axis, `transposes.py` the transposes in the map and in the taps, on which
`conv3d.py` and `conv_transpose.py` stand.
"""

from specviz.functional.band_limited.band import band_for_compression, band_for_energy, check_band, energy_by_band
from specviz.functional.band_limited.choice import ALGORITHMS, Algorithm
from specviz.functional.band_limited.conv import band_limited_conv1d, band_limited_conv2d, convolve, same_padding
from specviz.functional.band_limited.conv3d import band_limited_conv3d, convolve_volumes
from specviz.functional.band_limited.conv_transpose import (
    band_limited_conv_transpose1d,
    band_limited_conv_transpose2d,
    band_limited_conv_transpose3d,
    convolve_transposed,
)
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
    "band_limited_conv3d",
    "band_limited_conv_transpose1d",
    "band_limited_conv_transpose2d",
    "band_limited_conv_transpose3d",
    "check_band",
    "convolve",
    "convolve_transposed",
    "convolve_volumes",
    "energy_by_band",
    "fast_size",
    "published_floats",
    "same_padding",
]
