"""Spectral layers, named after their torch.nn siblings; imported as `snn`."""

from specviz.nn.band_limited import BandLimitedConv1d, BandLimitedConv2d
from specviz.nn.spectralize import Report, Swap, spectralize

__all__ = ["BandLimitedConv1d", "BandLimitedConv2d", "Report", "Swap", "spectralize"]
