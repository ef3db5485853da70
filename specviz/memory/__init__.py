"""What training holds in memory: measured step by step, and made smaller."""

from specviz.memory.compress import Compressed, CompressionStats, compress_activations, compressed
from specviz.memory.left import NothingCompressedWarning
from specviz.memory.measure import StepMemory, measure_step
from specviz.memory.rivals import bfloat16_activations, quantise_activations

__all__ = [
    "Compressed",
    "CompressionStats",
    "NothingCompressedWarning",
    "StepMemory",
    "bfloat16_activations",
    "compress_activations",
    "compressed",
    "measure_step",
    "quantise_activations",
]
