"""Every number that a machine decided: which of two ways is quicker, and how much to do at a time.

None of them changes a result beyond rounding. They are read as `calibration.NAME` at each use, so that whoever measures
a machine can set them here, before the first call: which algorithm is quicker for a shape is decided once. `RATES`
serve until `specviz.functional.rates` has measured those of the machine it runs on. `FITS` says where each was
measured, when, and which command shows whether it holds on another machine and gives the times to fit it again. Sizes
that kernels are compiled for (threads in a block, entries a CPU thread takes) stand beside the kernels.
"""

from __future__ import annotations

from dataclasses import dataclass

# --- Band-limited convolution: the model of what an algorithm takes.


@dataclass(frozen=True)
class Rates:
    """What the parts of a convolution take on a machine, in nanoseconds; `functional.rates` measures them.

    transform, product, filters    a multiply-add of a matrix product: to and from frequencies, over channels, and of
                                   taps' spectra
    convolution, depthwise         a multiply-add of torch's own convolution, with many channels and with one a group
    pixel, coefficient             a number that torch's convolution reads or writes, and one of a taps' spectrum
    fft, crop                      a number of an FFT, times the binary logarithm of the map's; one moved by a crop
    matrix_product                 each of a batch of matrix products
    call, direct_call              the fixed cost of a call on hardly any data: a band-limited convolution, and torch's
    """

    transform: float
    product: float
    filters: float
    convolution: float
    depthwise: float
    pixel: float
    coefficient: float
    fft: float
    crop: float
    matrix_product: float
    call: float
    direct_call: float


# Fitted to 468 forward passes over 18 shapes, 3 kernel sizes and 3 compressions: the fastest algorithm, or one within
# 10 %, is chosen for 146 of 156 of them. Other machines scale all of them; a GPU has not been fitted.
RATES = Rates(
    transform=0.0175,
    product=0.0296,
    filters=0.0242,
    convolution=0.0137,
    depthwise=0.0137,
    pixel=0.161,
    coefficient=0.39,
    fft=0.377,
    crop=2.1,
    matrix_product=105.0,
    call=1.15e6,
    direct_call=0.24e6,
)
# torch's own convolution is left only for an estimate well under its own: estimates err by a quarter.
LEAVE_DIRECT = 0.7
# Algorithms are tried against each other at a shape's first call where the estimates differ by no more than this.
ESTIMATES_ERR = 3.0
# The fixed cost of a band-limited convolution, in calls of torch: each takes as long as a tiny matrix product.
CALLS = 100
LANES = 8  # channels that torch's convolution computes with at a time
USUAL_BATCH = 32  # of a graph for every batch, to choose its algorithm by
FILTER_BYTES = 8 << 20  # filter spectra are made and used this much at a time, never held whole

# --- Spectral pooling.
# Multiply-adds of a matrix product that take as long as an FFT's work for a pixel and binary logarithm, and how much
# longer a size with a large prime factor takes. Fitted to square maps of 8 to 860 pixels, forward and backward:
# matrices are 1.3 to 5 times quicker up to 224 pixels; from 384 on it depends on the two sizes.
FFT_COST, ROUGH_SIZE = 20.0, 2.0
# Tiny maps are one product with one matrix, which does up to this many times the work of two without their overhead.
ONE_MATRIX = 4

# --- SpecNet's block.
# Of maps and kernel spectra that are dense at a time. A chunk costs some 20 calls, half a millisecond, so that larger
# ones are quicker: a block of 64 channels took 50 ms at 8 MiB, 42 at 16.
CHUNK_BYTES = 8 << 20
# Below this share of coefficients that are not 0, skipping the others beats a BLAS that multiplies them too. Of 85 rows
# (B, C, O) = (32, 64, 64) on one thread: 0.6 against 1.8 ms at 5 %, 1.3 against 1.5 at 20 %, 2.0 against 1.4 at 30 %.
SPARSE = 0.2

# --- Saved maps as sparse spectra.
SLAB_PIXELS = 1 << 20  # transformed at a time: what is dense on the way stays small, and near the cores
# Up to here one matrix product takes less time than the FFT's calls for so many small maps: 1.1 against 3.6 ns a pixel
# for 8 x 8, but 4.1 against 1.9 ns for 16 x 16.
GEMM_PIXELS = 64

# --- Swapping a model's layers.
LARGE_DEPTHWISE = 7  # taps: depth-wise convolutions that are smaller are as quick in space

# --- Kernels' channel products.
# Frequency-major, up to 3 channels, Numba takes half the time of batched GEMM for 8 or 16 outputs and about as long for
# 64; with more channels GEMM wins. In the native layout, where a GEMM has to transpose both ways, Numba takes a tenth
# (3 channels) to 1.2 times (16 channels, batch 32) its time up to 32 channels and 1.8 times at 64; with 2 threads it
# wins up to 32 and is a seventh slower at 64. The GPU's numbers are not measured.
FEW_CHANNELS = {"cpu": 3, "cuda": 32}
FEW_CHANNELS_NATIVE = {"cpu": 32, "cuda": 32}
MANY_OUTPUTS = 16

# --- One thread or all of them.
# Waking a second thread took 10 ms on an idle machine; one thread handles this many entries in 5 ms.
SMALL = 1 << 20
# How many multiply-adds take as long as one of those entries, 5 ns. A complex one of a product took 0.5 to 0.9 ns, and
# evaluating a filter's function as long as a few; one of a sparse product 0.25 ns, and a fifth of the map at most is
# worth that form.
PRODUCTS_AN_ENTRY = 8
SPARSE_PRODUCTS_AN_ENTRY = 100

# --- Memory.
CONSTANTS_BYTES = 128 << 20  # of matrices and indices that are kept for the next call
WHOLE_WAVES_BYTES = CONSTANTS_BYTES // 4  # of a kernel's waves that are held; larger ones are made piece by piece


@dataclass(frozen=True)
class Fit:
    """Where some of the numbers above come from.

    command  shows on the machine it runs on whether they hold, and prints the times to fit them to
    """

    numbers: tuple[str, ...]
    machine: str
    date: str
    command: str


_TWO_CORES, _FIRST = "AMD EPYC, 2 threads, torch 2.13 (CPU)", "2026-11-21"

FITS = (
    Fit(
        ("RATES", "LEAVE_DIRECT", "ESTIMATES_ERR", "CALLS", "LANES", "USUAL_BATCH"),
        *(_TWO_CORES, _FIRST, "specviz bench conv"),
    ),
    Fit(("FILTER_BYTES",), _TWO_CORES, _FIRST, "specviz bench conv"),
    Fit(("FFT_COST", "ROUGH_SIZE", "ONE_MATRIX"), _TWO_CORES, _FIRST, "specviz bench pool"),
    Fit(("CHUNK_BYTES",), _TWO_CORES, _FIRST, "specviz bench memory --only block"),
    Fit(("SPARSE", "SPARSE_PRODUCTS_AN_ENTRY"), _TWO_CORES, "2026-11-22", "specviz bench memory --only block"),
    Fit(("SLAB_PIXELS", "GEMM_PIXELS"), _TWO_CORES, _FIRST, "specviz bench compress"),
    Fit(("LARGE_DEPTHWISE",), _TWO_CORES, "2026-11-28", "specviz bench conv"),
    Fit(
        ("FEW_CHANNELS", "FEW_CHANNELS_NATIVE", "MANY_OUTPUTS", "PRODUCTS_AN_ENTRY"),
        *(_TWO_CORES, _FIRST, "specviz bench roofline"),
    ),
    Fit(("SMALL",), _TWO_CORES, _FIRST, "specviz bench threshold"),
    Fit(("CONSTANTS_BYTES", "WHOLE_WAVES_BYTES"), _TWO_CORES, _FIRST, "specviz bench memory"),
)
