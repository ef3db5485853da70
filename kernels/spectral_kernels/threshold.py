"""Drop the small coefficients of a spectrum and pack the others: a bitmap and the kept values.

The rule is SpecNet's (Guan et al., Algorithm 1): a coefficient is zeroed where |x_hat| <= beta.
It is written `not (|x_hat|^2 <= beta^2)`, so that NaN is kept and stays visible.

    x_hat    (N,) complex64 or complex128, contiguous; any spectrum, flattened
    bitmap, values   what was kept, as `spectral_kernels.bitmap` stores it; values as x_hat

|x_hat|^2 is formed in float64. The squares of float32 numbers are exact there, so all forms, vectorised
or not, with or without fused multiply-add, decide alike, and z decides like its conjugate.
With complex128, magnitudes under 1e-154 have a square of 0 and count as 0, and the forms may differ
where |x_hat|^2 and beta^2 agree to the last bit.
"""

from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
from numba import cuda as gpu  # the form below is called `cuda`
from numba import float64, int32, int64, prange

from spectral_kernels import bitmap as packed
from spectral_kernels.bitmap import CHUNK, TILE
from spectral_kernels.cores import Empty, parallel
from spectral_kernels.launch import BALLOT, OnGpu


def reference(x_hat: np.ndarray, beta: float) -> tuple[np.ndarray, np.ndarray]:
    """(N,) -> (ceil(N/8),) bitmap, (K,) values. The definition."""
    re, im = x_hat.real.astype(np.float64), x_hat.imag.astype(np.float64)
    with np.errstate(over="ignore"):
        keep = ~(re * re + im * im <= np.float64(beta) * np.float64(beta))
    return np.packbits(keep, bitorder="little"), x_hat[keep]


def reference_expand(bitmap: np.ndarray, values: np.ndarray, count: int) -> np.ndarray:
    """(ceil(count/8),) bitmap, (K,) values -> (count,) with zeros where nothing was kept."""
    x_hat = np.zeros(count, values.dtype)
    x_hat[packed.marked(bitmap, count)] = values
    return x_hat


def reference_gather(x_hat: np.ndarray, bitmap: np.ndarray) -> np.ndarray:
    """(N,), (ceil(N/8),) bitmap -> (K,) the entries that the bitmap marks: the adjoint of `reference_expand`."""
    packed.check_marks(bitmap, x_hat.size)
    values: np.ndarray = x_hat[packed.marked(bitmap, x_hat.size)]
    return values


# --- CPU. Indices are unsigned: with signed ones, Numba's wrap-around check keeps LLVM from vectorising.


@parallel()
def _mark(x_hat, beta_squared, bitmap, counts):  # type: ignore[no-untyped-def]
    for chunk in prange(counts.size):
        first = np.uintp(chunk) * np.uintp(CHUNK)
        last = min(first + np.uintp(CHUNK), np.uintp(x_hat.size))
        kept = np.int64(0)
        start = first
        while start < last:
            byte = np.uint8(0)
            for bit in range(min(np.uintp(8), last - start)):
                z = x_hat[start + np.uintp(bit)]
                re, im = np.float64(z.real), np.float64(z.imag)
                keep = np.uint8(not (re * re + im * im <= beta_squared))
                byte |= keep << np.uint8(bit)
                kept += keep
            bitmap[start >> np.uintp(3)] = byte
            start += np.uintp(8)
        counts[chunk] = kept


def mark(x_hat: np.ndarray, beta: float, empty: Empty) -> tuple[np.ndarray, np.ndarray]:
    """The bitmap, and where each chunk's values begin."""
    bitmap, counts = empty(-(-x_hat.size // 8), np.uint8), np.empty(-(-x_hat.size // CHUNK), np.int64)
    _mark(x_hat, float(beta) * float(beta), bitmap, counts)
    return bitmap, packed.offsets_after(counts)


def cpu(x_hat: np.ndarray, beta: float, empty: Empty = np.empty) -> tuple[np.ndarray, np.ndarray]:
    """`reference`, compiled and spread over the cores; the values are allocated at their exact size."""
    bitmap, offsets = mark(x_hat, beta, empty)
    values = empty(int(offsets[-1]), x_hat.dtype)
    packed.pack(x_hat, bitmap, offsets, values)
    return bitmap, values


def cpu_expand(bitmap: np.ndarray, values: np.ndarray, count: int, empty: Empty = np.empty) -> np.ndarray:
    """`reference_expand`, compiled and spread over the cores; raises where bitmap and values disagree."""
    offsets = packed.check_count(packed.offsets_of(bitmap), values.size)
    x_hat = empty(count, values.dtype)
    packed.unpack(bitmap, values, offsets, x_hat)
    return x_hat


def cpu_gather(x_hat: np.ndarray, bitmap: np.ndarray, empty: Empty = np.empty) -> np.ndarray:
    """`reference_gather`, compiled and spread over the cores."""
    packed.check_marks(bitmap, x_hat.size)
    offsets = packed.offsets_of(bitmap)
    values = empty(int(offsets[-1]), x_hat.dtype)
    packed.pack(x_hat, bitmap, offsets, values)
    return values


# --- CUDA: mark by blocks, then `bitmap`'s scan and pack.


@cache
def kernels(tile: int = TILE, ballot: bool = BALLOT) -> SimpleNamespace:
    """The CUDA kernel for blocks of `tile` threads, by votes or not; a block handles 8 * tile entries."""
    entry_of, store_marks = packed.marker(tile, ballot)

    @gpu.jit
    def mark(x_hat, beta_squared, bitmap, counts):  # type: ignore[no-untyped-def]
        """x_hat (N,) -> bitmap (ceil(N/8),), counts (blocks,)."""
        first = int64(gpu.blockIdx.x) * 8 * tile
        keep = int32(0)
        for i in range(8):
            n = first + entry_of(i)
            if n < x_hat.size:
                z = x_hat[n]
                re = float64(z.real)
                im = float64(z.imag)
                if not (re * re + im * im <= beta_squared):
                    keep |= int32(1) << i
        store_marks(keep, bitmap, counts)

    return SimpleNamespace(mark=mark)


def signatures(complex_type: str) -> dict[str, str]:
    """Numba signatures by kernel name, for compiling without a GPU; complex_type as in "complex64"."""
    return {"mark": f"void({complex_type}[::1], float64, uint8[::1], int32[::1])"}


def cuda(x_hat: Any, beta: float, **where: Any) -> tuple[Any, Any]:
    """`reference` on a GPU: device arrays in and out; by votes or not, to the same bits. `where`: see `OnGpu`.

    Reads one number back (how many were kept), because the values are allocated at their exact size.
    """
    on, entries = OnGpu.of(where, TILE), x_hat.shape[0]
    bitmap, counts = on.empty(-(-entries // 8), np.uint8), on.empty(packed.blocks_for(entries, on), np.int32)
    if not entries:
        return bitmap, on.empty(0, x_hat.dtype)
    beta_squared = float(beta) * float(beta)
    on.launch(kernels(on.tile, on.ballot).mark, counts.shape[0], on.tile, x_hat, beta_squared, bitmap, counts)
    return bitmap, packed.cuda_pack(x_hat, bitmap, packed.cuda_offsets_after(counts, on), on)


def cuda_expand(bitmap: Any, values: Any, count: int, **where: Any) -> Any:
    """`reference_expand` on a GPU: device arrays in and out."""
    on = OnGpu.of(where, TILE)
    x_hat = on.empty(count, values.dtype)
    if count:
        offsets, blocks = packed.cuda_offsets_of(bitmap, on), packed.blocks_for(count, on)
        on.launch(packed.kernels(on.tile, on.ballot).unpack, blocks, on.tile, bitmap, values, offsets, x_hat)
    return x_hat


def cuda_gather(x_hat: Any, bitmap: Any, **where: Any) -> Any:
    """`reference_gather` on a GPU: device arrays in and out. Reads back how many there are."""
    on = OnGpu.of(where, TILE)
    if not x_hat.shape[0]:
        return on.empty(0, x_hat.dtype)
    packed.check_marks(bitmap[-1:].copy_to_host(), x_hat.shape[0])
    return packed.cuda_pack(x_hat, bitmap, packed.cuda_offsets_of(bitmap, on), on)
