"""Explorers to display in a notebook: pictures, spectra and sliders."""

from specviz.widgets.band_limit import BandLimitExplorer
from specviz.widgets.convolution import ConvolutionExplorer
from specviz.widgets.explorer import Explorer, GridSlider
from specviz.widgets.filters import FilterExplorer
from specviz.widgets.parametrisation import ParametrisationExplorer
from specviz.widgets.pooling import PoolingExplorer
from specviz.widgets.speed import SpeedExplorer
from specviz.widgets.symmetry import SymmetryExplorer
from specviz.widgets.threshold import ThresholdExplorer

__all__ = [
    "BandLimitExplorer",
    "ConvolutionExplorer",
    "Explorer",
    "FilterExplorer",
    "GridSlider",
    "ParametrisationExplorer",
    "PoolingExplorer",
    "SpeedExplorer",
    "SymmetryExplorer",
    "ThresholdExplorer",
]
