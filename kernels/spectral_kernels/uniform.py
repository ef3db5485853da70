"""Write real numbers as whole multiples of one step, with a dead zone around 0, and read them back.

    x      any shape, float32
    codes  the same shape, int32: sign(x) floor(|x| / step + rounding)

`rounding` is what is added before the fraction is cut off: 0.5 takes the nearest multiple, less makes the interval that
becomes 0 wider than the others (the dead zone), which costs little where small numbers are many and saves bits there.
What is read back is code * step.

NaN and infinities become NOT_A_NUMBER, which is read back as NaN; what lies beyond LARGEST steps becomes LARGEST.
|x| / step is |x| times the float32 reciprocal of step, so a step is at least SMALLEST_STEP, whose reciprocal float32
has. A GPU may contract product and sum into one operation and then be one code off at a tie.
"""

from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
from numba import cuda as gpu  # the form below is called `cuda`
from numba import float32, int32, int64, njit, prange

from spectral_kernels.cores import Empty, parallel
from spectral_kernels.launch import OnGpu, device

ROUNDING = 0.4
LARGEST = 1 << 30  # float32 has it exactly
NOT_A_NUMBER = -(1 << 31)
SMALLEST_STEP = 1e-37
LARGEST_FINITE = float(np.finfo(np.float32).max)
TILE = 128  # threads in a block on a GPU, a number each
CHUNK = 16384  # numbers a CPU thread takes at a time


def inverse_of(step: float) -> np.float32:
    """What x is multiplied by."""
    return np.float32(1) / np.float32(step)


def reference(x: np.ndarray, step: float, rounding: float = ROUNDING) -> np.ndarray:
    """x -> codes. The definition."""
    with np.errstate(over="ignore", invalid="ignore"):
        level = np.abs(x) * inverse_of(step) + np.float32(rounding)
        codes = np.minimum(level, np.float32(LARGEST)).astype(np.int32)
    signed = np.where(x < 0, -codes, codes)
    return np.where(np.isfinite(x), signed, NOT_A_NUMBER).astype(np.int32)


def reference_expand(codes: np.ndarray, step: float) -> np.ndarray:
    """codes -> code * step, float32."""
    with np.errstate(over="ignore"):
        x = codes.astype(np.float32) * np.float32(step)
    return np.where(codes == NOT_A_NUMBER, np.float32(np.nan), x)


# --- One number at a time, written once and compiled for both machines.


def _code(x, inverse, rounding):  # type: ignore[no-untyped-def]
    magnitude = abs(x)
    if not magnitude <= float32(LARGEST_FINITE):
        return int32(NOT_A_NUMBER)
    code = int32(min(magnitude * inverse + rounding, float32(LARGEST)))
    return int32(-code if x < float32(0) else code)


def _value(code, step):  # type: ignore[no-untyped-def]
    if code == int32(NOT_A_NUMBER):
        return float32(np.nan)
    return float32(code) * step


# --- CPU. Indices are unsigned: with signed ones, Numba's wrap-around check keeps LLVM from vectorising.

code_on_cpu, value_on_cpu = (njit(cache=True)(f) for f in (_code, _value))


@parallel()
def _quantise(x, inverse, rounding, codes):  # type: ignore[no-untyped-def]
    for chunk in prange((x.size + CHUNK - 1) // CHUNK):
        first = np.uintp(chunk) * np.uintp(CHUNK)
        for i in range(first, min(first + np.uintp(CHUNK), np.uintp(x.size))):
            codes[i] = code_on_cpu(x[i], inverse, rounding)


@parallel()
def _expand(codes, step, x):  # type: ignore[no-untyped-def]
    for chunk in prange((x.size + CHUNK - 1) // CHUNK):
        first = np.uintp(chunk) * np.uintp(CHUNK)
        for i in range(first, min(first + np.uintp(CHUNK), np.uintp(x.size))):
            x[i] = value_on_cpu(codes[i], step)


def cpu(x: np.ndarray, step: float, rounding: float = ROUNDING, empty: Empty = np.empty) -> np.ndarray:
    """`reference`, compiled and spread over the cores."""
    codes = empty(x.shape, np.int32)
    _quantise(x.reshape(-1), inverse_of(step), np.float32(rounding), codes.reshape(-1))
    return codes


def cpu_expand(codes: np.ndarray, step: float, empty: Empty = np.empty) -> np.ndarray:
    """`reference_expand`, compiled and spread over the cores."""
    x = empty(codes.shape, np.float32)
    _expand(codes.reshape(-1), np.float32(step), x.reshape(-1))
    return x


# --- CUDA

_code_on_gpu, _value_on_gpu = device(_code), device(_value)


@cache
def kernels(tile: int = TILE) -> SimpleNamespace:
    """The CUDA kernels for blocks of `tile` threads."""

    @gpu.jit
    def quantise(x, inverse, rounding, codes):  # type: ignore[no-untyped-def]
        """x (N,) -> codes (N,)."""
        i = int64(gpu.blockIdx.x) * tile + gpu.threadIdx.x
        if i < x.size:
            codes[i] = _code_on_gpu(x[i], inverse, rounding)

    @gpu.jit
    def expand(codes, step, x):  # type: ignore[no-untyped-def]
        """codes (N,) -> x (N,)."""
        i = int64(gpu.blockIdx.x) * tile + gpu.threadIdx.x
        if i < x.size:
            x[i] = _value_on_gpu(codes[i], step)

    return SimpleNamespace(quantise=quantise, expand=expand)


def signatures(complex_type: str) -> dict[str, str]:
    """Numba signatures by kernel name, for compiling without a GPU; no kernel takes complex numbers."""
    return {
        "quantise": "void(float32[::1], float32, float32, int32[::1])",
        "expand": "void(int32[::1], float32, float32[::1])",
    }


def cuda(x: Any, step: float, rounding: float = ROUNDING, **where: Any) -> Any:
    """`reference` on a GPU: device arrays in and out. `where`: see `OnGpu`."""
    on, count = OnGpu.of(where, TILE), int(np.prod(x.shape))
    codes = on.empty(x.shape, np.int32)
    arguments = x.reshape(count), inverse_of(step), np.float32(rounding), codes.reshape(count)
    on.launch(kernels(on.tile).quantise, (count, on.tile), on.tile, *arguments)
    return codes


def cuda_expand(codes: Any, step: float, **where: Any) -> Any:
    """`reference_expand` on a GPU: device arrays in and out."""
    on, count = OnGpu.of(where, TILE), int(np.prod(codes.shape))
    x = on.empty(codes.shape, np.float32)
    on.launch(
        kernels(on.tile).expand, (count, on.tile), on.tile, codes.reshape(count), np.float32(step), x.reshape(count)
    )
    return x
