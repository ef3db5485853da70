"""What training holds in memory: measured step by step, and made smaller."""

from specviz.memory.checkpoint import checkpoint_activations
from specviz.memory.contexts import Compressed, compress_activations, compressed
from specviz.memory.fit import Fit, FitRow, fit, largest_batch
from specviz.memory.left import NothingCompressedWarning
from specviz.memory.predict import PredictedStep, predict_step
from specviz.memory.rivals import bfloat16_activations, quantise_activations
from specviz.memory.saving import CompressionStats
from specviz.memory.step import StepMemory, measure_step

__all__ = [
    "Compressed",
    "CompressionStats",
    "Fit",
    "FitRow",
    "NothingCompressedWarning",
    "PredictedStep",
    "StepMemory",
    "bfloat16_activations",
    "checkpoint_activations",
    "compress_activations",
    "compressed",
    "fit",
    "largest_batch",
    "measure_step",
    "predict_step",
    "quantise_activations",
]
