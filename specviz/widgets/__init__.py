"""Explorers to display in a notebook: pictures, spectra and sliders."""

from specviz.widgets.band_limit import BandLimitExplorer
from specviz.widgets.convolution import ConvolutionExplorer
from specviz.widgets.explorer import Explorer, GridSlider
from specviz.widgets.speed import SpeedExplorer
from specviz.widgets.symmetry import SymmetryExplorer
from specviz.widgets.threshold import ThresholdExplorer

__all__ = [
    "BandLimitExplorer",
    "ConvolutionExplorer",
    "Explorer",
    "GridSlider",
    "SpeedExplorer",
    "SymmetryExplorer",
    "ThresholdExplorer",
]
