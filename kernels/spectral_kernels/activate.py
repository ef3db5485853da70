"""SpecNet's step after the product: threshold, activate, mark and pack at once; and its backward.

Guan et al., Algorithm 1: a coefficient is zeroed where |x_hat| <= beta, else f(a + ib) = f(a) + i f(b) with f odd, so
that conjugate partners stay conjugates.

    x_hat    (N,) complex64 or complex128, contiguous; a product's spectrum, flattened
    out      (N,) as x_hat: activated, zero where dropped
    bitmap, values   what was kept of `out`, as `spectral_kernels.bitmap` stores it

The derivative of each f follows from its value, so the store is all that the backward pass needs: tanh' = 1 - f^2,
softsign' = (1 - |f|)^2, arctan' = cos(f)^2, hardtanh' = 1 where |f| < 1, identity' = 1.
"""

import math
from collections.abc import Callable
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
from numba import cuda as gpu  # the form below is called `cuda`
from numba import float64, int32, int64, njit, prange

from spectral_kernels import bitmap as packed
from spectral_kernels import threshold
from spectral_kernels.bitmap import CHUNK, TILE
from spectral_kernels.cores import Empty, parallel
from spectral_kernels.launch import BALLOT, OnGpu, device, real_type

ACTIVATIONS = ("tanh", "softsign", "arctan", "hardtanh", "identity")  # kernels know them by their place


def _on_parts(x: np.ndarray, kind: str) -> np.ndarray:
    """f of real numbers."""
    functions: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "tanh": np.tanh,
        "softsign": lambda x: x / (1 + np.abs(x)),
        "arctan": np.arctan,
        "hardtanh": lambda x: np.clip(x, -1, 1),
        "identity": lambda x: x,
    }
    return functions[kind](x)


def _slope(f: np.ndarray, kind: str) -> np.ndarray:
    """f' of real numbers, from the value f."""
    slopes: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "tanh": lambda f: 1 - f * f,
        "softsign": lambda f: (1 - np.abs(f)) ** 2,
        "arctan": lambda f: np.cos(f) ** 2,
        "hardtanh": lambda f: np.where(np.abs(f) >= 1, 0, np.ones_like(f)),
        "identity": np.ones_like,
    }
    return slopes[kind](f)


def reference(x_hat: np.ndarray, beta: float, activation: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(N,) -> out (N,), bitmap, values. The definition."""
    bitmap, kept = threshold.reference(x_hat, beta)
    values = np.empty_like(kept)
    # Part by part: 1j * f would make NaN of the real part where the imaginary one is NaN or infinite.
    with np.errstate(invalid="ignore"):  # softsign of infinity is NaN, as torch's
        values.real, values.imag = _on_parts(kept.real, activation), _on_parts(kept.imag, activation)
    return threshold.reference_expand(bitmap, values, x_hat.size), bitmap, values


def reference_backward(grad: np.ndarray, bitmap: np.ndarray, values: np.ndarray, activation: str) -> np.ndarray:
    """Gradient of out (N,) -> gradient of x_hat (N,), from the store. The definition."""
    kept = packed.marked(bitmap, grad.size)
    back = np.zeros_like(grad)
    with np.errstate(invalid="ignore"):
        back.real[kept] = grad.real[kept] * _slope(values.real, activation)
        back.imag[kept] = grad.imag[kept] * _slope(values.imag, activation)
    return back


# --- One number at a time, written once and compiled for both machines. `one` carries the type.


def _activated(x, kind, one):  # type: ignore[no-untyped-def]
    """f(x); NaN stays NaN."""
    if kind == 0:
        return math.tanh(x)
    if kind == 1:
        return x / (one + abs(x))
    if kind == 2:
        return math.atan(x)
    if kind == 3:
        if x > one:
            return one
        if x < -one:
            return -one
    return x


def _slope_of(f, kind, one):  # type: ignore[no-untyped-def]
    """f'(x), from the value f."""
    if kind == 0:
        return one - f * f
    if kind == 1:
        return (one - abs(f)) * (one - abs(f))
    if kind == 2:
        # cos(f)^2 by its Taylor series: |f| <= pi/2, and a GPU's own cosine spills for the sake of huge arguments.
        square, cosine = f * f, one
        for k in range(11, 0, -1):
            cosine = one - cosine * square / (one * (2 * k * (2 * k - 1)))
        return cosine * cosine
    if kind == 3 and abs(f) >= one:
        return one - one
    return one


# --- CPU. The activation is evaluated where a coefficient is kept, which few are.

_activated_on_cpu, _slope_on_cpu = njit(cache=True)(_activated), njit(cache=True)(_slope_of)


@parallel()
def _pack_activated(x_hat, bitmap, offsets, kind, one, values):  # type: ignore[no-untyped-def]
    for chunk in prange(offsets.size - 1):
        first = np.uintp(chunk) * np.uintp(CHUNK)
        last = min(first + np.uintp(CHUNK), np.uintp(x_hat.size))
        to = np.uintp(offsets[chunk])
        for n in range(first, last):
            if bitmap[n >> np.uintp(3)] >> (n & np.uintp(7)) & np.uint8(1):
                z = x_hat[n]
                values[to] = complex(_activated_on_cpu(z.real, kind, one), _activated_on_cpu(z.imag, kind, one))
                to += np.uintp(1)


@parallel()
def _backward(grad, bitmap, values, offsets, kind, one, back):  # type: ignore[no-untyped-def]
    for chunk in prange(offsets.size - 1):
        first = np.uintp(chunk) * np.uintp(CHUNK)
        last = min(first + np.uintp(CHUNK), np.uintp(grad.size))
        source = np.uintp(offsets[chunk])
        for n in range(first, last):
            if not bitmap[n >> np.uintp(3)] >> (n & np.uintp(7)) & np.uint8(1):
                back[n] = 0
                continue
            z, g = values[source], grad[n]
            source += np.uintp(1)
            back[n] = complex(
                g.real * _slope_on_cpu(z.real, kind, one),
                g.imag * _slope_on_cpu(z.imag, kind, one),
            )


def _kind(activation: str, like: Any) -> tuple[Any, Any]:
    """What kernels are told: an activation's place, and 1 in the type of the coefficients' parts."""
    return np.int32(ACTIVATIONS.index(activation)), real_type(like)(1)


def cpu(
    x_hat: np.ndarray, beta: float, activation: str, empty: Empty = np.empty, dense: bool = True
) -> tuple[np.ndarray | None, np.ndarray, np.ndarray]:
    """`reference`, compiled and spread over the cores; the values are allocated at their exact size.

    dense  False leaves out what costs most where few are kept: `out` is None then
    """
    bitmap, offsets = threshold.mark(x_hat, beta, empty)
    values = empty(int(offsets[-1]), x_hat.dtype)
    _pack_activated(x_hat, bitmap, offsets, *_kind(activation, x_hat), values)
    if not dense:
        return None, bitmap, values
    out = empty(x_hat.size, x_hat.dtype)
    packed.unpack(bitmap, values, offsets, out)
    return out, bitmap, values


def cpu_backward(
    grad: np.ndarray, bitmap: np.ndarray, values: np.ndarray, activation: str, empty: Empty = np.empty
) -> np.ndarray:
    """`reference_backward`, compiled and spread over the cores; raises where bitmap and values disagree."""
    offsets = packed.check_count(packed.offsets_of(bitmap), values.size)
    back = empty(grad.size, grad.dtype)
    _backward(grad, bitmap, values, offsets, *_kind(activation, grad), back)
    return back


# --- CUDA. As `threshold`'s kernel, in both forms; scan and pack are `bitmap`'s.


@cache
def kernels(tile: int = TILE, ballot: bool = BALLOT) -> SimpleNamespace:
    """The CUDA kernels for blocks of `tile` threads, by votes or not; a block handles 8 * tile entries."""
    entry_of, store_marks = packed.marker(tile, ballot)
    load_bytes, place = packed.lookup(tile, ballot)
    activated, slope_of = device(_activated), device(_slope_of)

    @gpu.jit
    def activate(x_hat, beta_squared, kind, one, out, bitmap, counts):  # type: ignore[no-untyped-def]
        """x_hat (N,) -> out (N,), bitmap (ceil(N/8),), counts (blocks,)."""
        first = int64(gpu.blockIdx.x) * 8 * tile
        keep = int32(0)
        for i in range(8):
            n = first + entry_of(i)
            if n < x_hat.size:
                z = x_hat[n]
                re, im = float64(z.real), float64(z.imag)
                a = b = one - one
                if not (re * re + im * im <= beta_squared):
                    keep |= int32(1) << i
                    a, b = activated(z.real, kind, one), activated(z.imag, kind, one)
                out[n] = complex(a, b)
        store_marks(keep, bitmap, counts)

    @gpu.jit
    def backward(grad, bitmap, values, offsets, kind, one, back):  # type: ignore[no-untyped-def]
        """grad (N,), bitmap, values (K,), offsets (blocks + 1,) -> back (N,)."""
        bytes_, prefix = load_bytes(bitmap)
        for i in range(8):
            entry = i * tile + gpu.threadIdx.x
            n = int64(gpu.blockIdx.x) * 8 * tile + entry
            if n < grad.size:
                source = place(bytes_, prefix, entry)
                re = im = one - one
                if source >= 0:
                    z, g = values[offsets[gpu.blockIdx.x] + source], grad[n]
                    re, im = g.real * slope_of(z.real, kind, one), g.imag * slope_of(z.imag, kind, one)
                back[n] = complex(re, im)

    return SimpleNamespace(activate=activate, backward=backward)


def signatures(complex_type: str) -> dict[str, str]:
    """Numba signatures by kernel name, for compiling without a GPU; complex_type as in "complex64"."""
    x_hat, real = f"{complex_type}[::1]", {"complex64": "float32", "complex128": "float64"}[complex_type]
    return {
        "activate": f"void({x_hat}, float64, int32, {real}, {x_hat}, uint8[::1], int32[::1])",
        "backward": f"void({x_hat}, uint8[::1], {x_hat}, int64[::1], int32, {real}, {x_hat})",
    }


def cuda(x_hat: Any, beta: float, activation: str, **where: Any) -> tuple[Any, Any, Any]:
    """`reference` on a GPU: device arrays in and out; by votes or not, to the same bits. `where`: see `OnGpu`.

    Reads back how many were kept.
    """
    on, entries = OnGpu.of(where, TILE), x_hat.shape[0]
    out, bitmap = on.empty(entries, x_hat.dtype), on.empty(-(-entries // 8), np.uint8)
    if not entries:
        return out, bitmap, on.empty(0, x_hat.dtype)
    counts = on.empty(packed.blocks_for(entries, on), np.int32)
    how = float(beta) * float(beta), *_kind(activation, x_hat)
    on.launch(kernels(on.tile, on.ballot).activate, counts.shape[0], on.tile, x_hat, *how, out, bitmap, counts)
    return out, bitmap, packed.cuda_pack(out, bitmap, packed.cuda_offsets_after(counts, on), on)


def cuda_backward(grad: Any, bitmap: Any, values: Any, activation: str, **where: Any) -> Any:
    """`reference_backward` on a GPU: device arrays in and out."""
    on, entries = OnGpu.of(where, TILE), grad.shape[0]
    back = on.empty(entries, grad.dtype)
    if entries:
        read = grad, bitmap, values, packed.cuda_offsets_of(bitmap, on)
        kernel, blocks = kernels(on.tile, on.ballot).backward, packed.blocks_for(entries, on)
        on.launch(kernel, blocks, on.tile, *read, *_kind(activation, grad), back)
    return back
