"""Mean and variance of maps, in float64, where no float32 number overflows or vanishes when squared.

    x         (N, F) float32: N maps of F >= 1 numbers
    mean      (N,) float64
    variance  (N,) float64, about the mean; NaN where a number is not finite

The variance is a mean of squares less a squared mean, so it loses digits where the mean is large. At a mean of 2^24
standard deviations its relative error is about 2^-4; beyond that, float32 numbers themselves hold no variance.
"""

from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
from numba import cuda as gpu  # the form below is called `cuda`
from numba import float64, int64, njit, prange

from spectral_kernels.cores import Empty, parallel
from spectral_kernels.launch import OnGpu

TILE = 128  # threads in a block on a GPU, which measure one map; a power of two


def reference(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """x -> mean, variance. The definition."""
    wide = x.astype(np.float64)
    with np.errstate(invalid="ignore"):
        return wide.mean(1), wide.var(1)


# --- CPU. Indices are unsigned: with signed ones, Numba's wrap-around check keeps LLVM from vectorising.


@njit(cache=True, fastmath={"reassoc", "contract"})
def _sums(x):  # type: ignore[no-untyped-def]
    total, squares = np.float64(0), np.float64(0)
    for i in range(np.uintp(x.size)):
        number = np.float64(x[i])
        total += number
        squares += number * number
    return total, squares


@parallel()
def _measure(x, mean, variance):  # type: ignore[no-untyped-def]
    for n in prange(x.shape[0]):
        total, squares = _sums(x[n])
        mean[n] = total / x.shape[1]
        difference = squares / x.shape[1] - mean[n] * mean[n]
        variance[n] = np.float64(0) if difference < 0 else difference  # NaN stays


def cpu(x: np.ndarray, empty: Empty = np.empty) -> tuple[np.ndarray, np.ndarray]:
    """`reference`, compiled and spread over the cores."""
    mean, variance = empty(len(x), np.float64), empty(len(x), np.float64)
    _measure(x, mean, variance)
    return mean, variance


# --- CUDA


@cache
def kernels(tile: int = TILE) -> SimpleNamespace:
    """The CUDA kernels for blocks of `tile` threads."""

    @gpu.jit
    def measure(x, mean, variance):  # type: ignore[no-untyped-def]
        """x (N, F) -> mean, variance (N,). A block a map."""
        totals = gpu.shared.array(tile, float64)
        squares = gpu.shared.array(tile, float64)
        t = gpu.threadIdx.x
        n = gpu.blockIdx.x
        total = float64(0)
        square = float64(0)
        for i in range(t, x.shape[1], tile):
            number = float64(x[n, i])
            total += number
            square += number * number
        totals[t] = total
        squares[t] = square
        gpu.syncthreads()
        half = int64(tile // 2)
        while half > 0:
            if t < half:
                totals[t] += totals[t + half]
                squares[t] += squares[t + half]
            gpu.syncthreads()
            half //= 2
        if t == 0:
            average = totals[0] / x.shape[1]
            difference = squares[0] / x.shape[1] - average * average
            mean[n] = average
            variance[n] = float64(0) if difference < 0 else difference

    return SimpleNamespace(measure=measure)


def signatures(complex_type: str) -> dict[str, str]:
    """Numba signatures by kernel name, for compiling without a GPU; no kernel takes complex numbers."""
    return {"measure": "void(float32[:, ::1], float64[::1], float64[::1])"}


def cuda(x: Any, **where: Any) -> tuple[Any, Any]:
    """`reference` on a GPU: device arrays in and out. `where`: see `OnGpu`."""
    on, maps = OnGpu.of(where, TILE), x.shape[0]
    mean, variance = on.empty(maps, np.float64), on.empty(maps, np.float64)
    on.launch(kernels(on.tile).measure, maps, on.tile, x, mean, variance)
    return mean, variance
