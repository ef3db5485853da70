"""Explorers to display in a notebook: pictures, spectra and sliders."""

from specviz.widgets.activation import ActivationExplorer
from specviz.widgets.band_limit import BandLimitExplorer
from specviz.widgets.convolution import ConvolutionExplorer
from specviz.widgets.explorer import Explorer, GridSlider
from specviz.widgets.filters import FilterExplorer
from specviz.widgets.memory import MemoryExplorer, StepExplorer
from specviz.widgets.parametrisation import ParametrisationExplorer
from specviz.widgets.pooling import PoolingExplorer
from specviz.widgets.specnet import SpecNetExplorer
from specviz.widgets.speed import SpeedExplorer
from specviz.widgets.symmetry import SymmetryExplorer
from specviz.widgets.threshold import ThresholdExplorer

__all__ = [
    "ActivationExplorer",
    "BandLimitExplorer",
    "ConvolutionExplorer",
    "Explorer",
    "FilterExplorer",
    "GridSlider",
    "MemoryExplorer",
    "ParametrisationExplorer",
    "PoolingExplorer",
    "SpecNetExplorer",
    "SpeedExplorer",
    "StepExplorer",
    "SymmetryExplorer",
    "ThresholdExplorer",
]
