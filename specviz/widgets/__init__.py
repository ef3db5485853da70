"""Explorers to display in a notebook: pictures, spectra and sliders."""

from specviz.extras import needs

with needs("lab"):
    from specviz.widgets.activation import ActivationExplorer
    from specviz.widgets.band_limit import BandLimitExplorer
    from specviz.widgets.controls import GridSlider
    from specviz.widgets.convolution import ConvolutionExplorer
    from specviz.widgets.explorer import Explorer
    from specviz.widgets.export import ExportButtons
    from specviz.widgets.figure import FigureView
    from specviz.widgets.filters import FilterExplorer
    from specviz.widgets.guess import Guess, Revealed
    from specviz.widgets.hidden_wave import HiddenWaveExplorer, hidden_signal
    from specviz.widgets.live import LiveTrainingExplorer
    from specviz.widgets.memory import MemoryExplorer, StepExplorer
    from specviz.widgets.model import ModelExplorer
    from specviz.widgets.parametrisation import ParametrisationExplorer
    from specviz.widgets.pooling import PoolingExplorer
    from specviz.widgets.rebuild import RebuildExplorer
    from specviz.widgets.row import RowExplorer
    from specviz.widgets.specnet import SpecNetExplorer
    from specviz.widgets.speed import SpeedExplorer
    from specviz.widgets.stripes import StripesExplorer
    from specviz.widgets.symmetry import SymmetryExplorer
    from specviz.widgets.threshold import ThresholdExplorer
    from specviz.widgets.training import TrainingExplorer
    from specviz.widgets.verdicts import VerdictExplorer
    from specviz.widgets.waves import WaveExplorer, WaveSumExplorer

__all__ = [
    "ActivationExplorer",
    "BandLimitExplorer",
    "ConvolutionExplorer",
    "Explorer",
    "ExportButtons",
    "FigureView",
    "FilterExplorer",
    "GridSlider",
    "Guess",
    "HiddenWaveExplorer",
    "LiveTrainingExplorer",
    "MemoryExplorer",
    "ModelExplorer",
    "ParametrisationExplorer",
    "PoolingExplorer",
    "RebuildExplorer",
    "Revealed",
    "RowExplorer",
    "SpecNetExplorer",
    "SpeedExplorer",
    "StepExplorer",
    "StripesExplorer",
    "SymmetryExplorer",
    "ThresholdExplorer",
    "TrainingExplorer",
    "VerdictExplorer",
    "WaveExplorer",
    "WaveSumExplorer",
    "hidden_signal",
]
