"""Spectral layers, named after their torch.nn siblings; imported as `snn`."""

from specviz.nn.band_limited import (
    BandLimitedConv1d,
    BandLimitedConv2d,
    BandLimitedConv3d,
    BandLimitedConvTranspose1d,
    BandLimitedConvTranspose2d,
    BandLimitedConvTranspose3d,
)
from specviz.nn.batch_norm import SpectralBatchNorm2d
from specviz.nn.parametric import ParametricSpectralConv2d
from specviz.nn.specnet import DeadBlock, SpecNetBlock2d, SpecNetPixelBlock2d
from specviz.nn.spectral_param import SpectralParamConv1d, SpectralParamConv2d, SpectralParamConv3d
from specviz.nn.spectral_pool import (
    FrequencyDropout1d,
    FrequencyDropout2d,
    FrequencyDropout3d,
    SpectralPool1d,
    SpectralPool2d,
    SpectralPool3d,
)
from specviz.nn.spectralize import Report, Swap, spectralize

__all__ = [
    "BandLimitedConv1d",
    "BandLimitedConv2d",
    "BandLimitedConv3d",
    "BandLimitedConvTranspose1d",
    "BandLimitedConvTranspose2d",
    "BandLimitedConvTranspose3d",
    "DeadBlock",
    "FrequencyDropout1d",
    "FrequencyDropout2d",
    "FrequencyDropout3d",
    "ParametricSpectralConv2d",
    "Report",
    "SpecNetBlock2d",
    "SpecNetPixelBlock2d",
    "SpectralBatchNorm2d",
    "SpectralParamConv1d",
    "SpectralParamConv2d",
    "SpectralParamConv3d",
    "SpectralPool1d",
    "SpectralPool2d",
    "SpectralPool3d",
    "Swap",
    "spectralize",
]
