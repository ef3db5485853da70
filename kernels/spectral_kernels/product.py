"""Multiply spectra by filters at every frequency and sum over the input channels.

Two layouts. Frequency-major, one small matrix product for each frequency:

    out[f, p, q] = sum_k a[f, p, k] b[f, k, q]            (F, P, K), (F, K, Q) -> (F, P, Q)

Native, as transforms leave their spectra, for few channels or depth-wise filters:

    out[g, p, q, f] = sum_k a[g, p, k, f] b[g, q, k, f]   (G, P, K, F), (G, Q, K, F) -> (G, P, Q, F)

Forward a is x_hat and b is w_hat: P the batch, K a group's input channels, Q its outputs. The adjoints are the same
sums with the roles changed, so they are the same kernels: see `adjoints`. Either factor may be conjugated.
A complex product takes four real multiplications, or three and more additions (Gauss): k = b_re (a_re + a_im),
re = k - a_im (b_re + b_im), im = k + a_re (b_im - b_re).
"""

from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
from numba import cuda as gpu  # the form below is called `cuda`
from numba import int64, prange

from spectral_kernels.cores import Empty, parallel
from spectral_kernels.launch import OnGpu, device, real_type

CHUNK = 1024  # frequencies that a CPU thread takes at a time in the native layout: three rows of 8 KiB stay in L1
TILE = 16  # a block on a GPU makes TILE x TILE outputs of one frequency; native: TILE * TILE neighbouring outputs


def adjoints(conjugate_a: bool, conjugate_b: bool) -> tuple[tuple[bool, bool], tuple[bool, bool]]:
    """Flags for the two gradients of out = A B, A = a or conj a, B alike.

    frequency-major: grad_a = product(grad, b^T), grad_b = product(a^T, grad)
    native:          grad_a = product(grad, b^T), grad_b = product(grad^T, a^T), ^T swapping the middle two axes
    First the flags of (grad, b), then those of (a, grad); the native form takes the second pair in reverse order.
    """
    return (
        (True, conjugate_b) if conjugate_a else (False, not conjugate_b),
        (conjugate_a, True) if conjugate_b else (not conjugate_a, False),
    )


def _conjugated(a: np.ndarray, flag: bool) -> np.ndarray:
    return a.conj() if flag else a


def reference(
    a: np.ndarray, b: np.ndarray, conjugate_a: bool = False, conjugate_b: bool = False, multiplications: int = 4
) -> np.ndarray:
    """(F, P, K), (F, K, Q) -> (F, P, Q). The definition; summed in complex128."""
    wide: np.ndarray = _conjugated(a, conjugate_a).astype(np.complex128) @ _conjugated(b, conjugate_b)
    return wide.astype(a.dtype)


def reference_native(
    a: np.ndarray, b: np.ndarray, conjugate_a: bool = False, conjugate_b: bool = False, multiplications: int = 4
) -> np.ndarray:
    """(G, P, K, F), (G, Q, K, F) -> (G, P, Q, F). The definition; summed in complex128."""
    wide = _conjugated(a, conjugate_a).astype(np.complex128), _conjugated(b, conjugate_b)
    out: np.ndarray = np.einsum("gpkf,gqkf->gpqf", *wide).astype(a.dtype)
    return out


# --- CPU. Arrays come as one row of numbers with their strides, so that transposed views need no copy.


def _sign(conjugate: bool, like: Any) -> Any:
    return real_type(like)(-1 if conjugate else 1)


@parallel()
def _product(a, b, sign_a, sign_b, gauss, out):  # type: ignore[no-untyped-def]
    for index in prange(a.shape[0]):
        f = np.uintp(index)
        for p in range(np.uintp(a.shape[1])):
            for q in range(np.uintp(b.shape[2])):
                out[f, p, q] = 0
            for k in range(np.uintp(a.shape[2])):
                z = a[f, p, k]
                re, im = z.real, sign_a * z.imag
                if gauss:
                    both = re + im
                    for q in range(np.uintp(b.shape[2])):
                        w = b[f, k, q]
                        w_re, w_im = w.real, sign_b * w.imag
                        common = w_re * both
                        out[f, p, q] += complex(common - im * (w_re + w_im), common + re * (w_im - w_re))
                else:
                    for q in range(np.uintp(b.shape[2])):
                        w = b[f, k, q]
                        w_re, w_im = w.real, sign_b * w.imag
                        out[f, p, q] += complex(re * w_re - im * w_im, re * w_im + im * w_re)


@parallel()
def _native(a, sa, b, sb, sizes, sign_a, sign_b, gauss, out, so):  # type: ignore[no-untyped-def]
    G, P, Q, K, F = sizes
    chunks = (F + CHUNK - 1) // CHUNK
    for task in prange(G * P * chunks):
        # Neighbouring tasks take the same frequencies: their filters are still in the cache.
        p, g, chunk = task % P, task // P % G, task // (P * G)
        first = np.uintp(chunk) * np.uintp(CHUNK)
        count = min(np.uintp(CHUNK), np.uintp(F) - first)
        for q in range(Q):
            to = out[g * so[0] + p * so[1] + q * so[2] + first :][:count]
            if K == 0:
                to[:] = 0
            for k in range(K):
                x = a[g * sa[0] + p * sa[1] + k * sa[2] + first :][:count]
                w = b[g * sb[0] + q * sb[1] + k * sb[2] + first :][:count]
                for f in range(count):
                    re, im = x[f].real, sign_a * x[f].imag
                    w_re, w_im = w[f].real, sign_b * w[f].imag
                    if gauss:
                        common = w_re * (re + im)
                        z = complex(common - im * (w_re + w_im), common + re * (w_im - w_re))
                    else:
                        z = complex(re * w_re - im * w_im, re * w_im + im * w_re)
                    if k == 0:
                        to[f] = z
                    else:
                        to[f] += z


def cpu(
    a: np.ndarray,
    b: np.ndarray,
    conjugate_a: bool = False,
    conjugate_b: bool = False,
    multiplications: int = 4,
    empty: Empty = np.empty,
) -> np.ndarray:
    """`reference`, compiled and spread over the cores: for few channels; above that a BLAS is faster."""
    out = empty((a.shape[0], a.shape[1], b.shape[2]), a.dtype)
    a, b = np.ascontiguousarray(a), np.ascontiguousarray(b)
    _product(a, b, _sign(conjugate_a, a), _sign(conjugate_b, b), multiplications == 3, out)
    return out


def _flat(x: np.ndarray) -> tuple[np.ndarray, tuple[int, ...]]:
    """A view with neighbouring frequencies as its memory in one row, and the strides of the other axes in entries."""
    if x.shape[-1] > 1 and x.strides[-1] != x.itemsize:
        x = np.ascontiguousarray(x)
    reach = 1 + sum((n - 1) * s for n, s in zip(x.shape, x.strides, strict=True)) // x.itemsize if x.size else 0
    return np.lib.stride_tricks.as_strided(x, (reach,), (x.itemsize,)), tuple(s // x.itemsize for s in x.strides[:-1])


def cpu_native(
    a: np.ndarray,
    b: np.ndarray,
    conjugate_a: bool = False,
    conjugate_b: bool = False,
    multiplications: int = 4,
    empty: Empty = np.empty,
) -> np.ndarray:
    """`reference_native`, compiled and spread over the cores. The result is (P, G, Q, F) in memory."""
    (G, P, K, F), Q = a.shape, b.shape[1]
    out = empty((P, G, Q, F), a.dtype).transpose(1, 0, 2, 3)
    if out.size:
        (flat_a, sa), (flat_b, sb), (flat_out, so) = _flat(a), _flat(b), _flat(out)
        signs = _sign(conjugate_a, a), _sign(conjugate_b, b)
        _native(flat_a, sa, flat_b, sb, (G, P, Q, K, F), *signs, multiplications == 3, flat_out, so)
    return out


# --- CUDA


@device
def _four(re, im, a_re, a_im, b_re, b_im):  # type: ignore[no-untyped-def]
    return re + a_re * b_re - a_im * b_im, im + a_re * b_im + a_im * b_re


@device
def _three(re, im, a_re, a_im, b_re, b_im):  # type: ignore[no-untyped-def]
    common = b_re * (a_re + a_im)
    return re + common - a_im * (b_re + b_im), im + common + a_re * (b_im - b_re)


@cache
def kernels(tile: int = TILE) -> SimpleNamespace:
    """The CUDA kernels: `product` and `native` with four multiplications, `product3` and `native3` with three."""
    return SimpleNamespace(
        product=_product_by(_four, tile),
        native=_native_by(_four),
        product3=_product_by(_three, tile),
        native3=_native_by(_three),
    )


def _product_by(multiply_add: Any, tile: int) -> Any:
    @gpu.jit
    def product(a, b, sign_a, sign_b, out):  # type: ignore[no-untyped-def]
        """(F, P, K), (F, K, Q) -> (F, P, Q). Grid: frequencies, tiles of P, tiles of Q."""
        part_a = gpu.shared.array((tile, tile), a.dtype)
        part_b = gpu.shared.array((tile, tile), b.dtype)
        x, y = gpu.threadIdx.x, gpu.threadIdx.y
        f = gpu.blockIdx.x
        p = gpu.blockIdx.y * tile + y
        q = gpu.blockIdx.z * tile + x
        P, K, Q = a.shape[1], a.shape[2], b.shape[2]
        re = sign_a * 0
        im = sign_a * 0
        for start in range(0, K, tile):
            part_a[y, x] = 0
            part_b[y, x] = 0
            if p < P and start + x < K:
                part_a[y, x] = a[f, p, start + x]
            if q < Q and start + y < K:
                part_b[y, x] = b[f, start + y, q]
            gpu.syncthreads()
            for k in range(tile):
                z = part_a[y, k]
                w = part_b[k, x]
                re, im = multiply_add(re, im, z.real, sign_a * z.imag, w.real, sign_b * w.imag)
            gpu.syncthreads()
        if p < P and q < Q:
            out[f, p, q] = complex(re, im)

    return product


def _native_by(multiply_add: Any) -> Any:
    @gpu.jit
    def native(a, sa, b, sb, G, P, Q, K, F, sign_a, sign_b, out):  # type: ignore[no-untyped-def]
        """Flat arrays with the strides of (g, p, k) and (g, q, k) -> out (P, G, Q, F), flat."""
        step = int64(gpu.gridDim.x) * gpu.blockDim.x
        n = int64(gpu.blockIdx.x) * gpu.blockDim.x + gpu.threadIdx.x
        while n < out.size:  # neighbouring threads take neighbouring frequencies
            f = n % F
            q = n // F % Q
            g = n // (F * Q) % G
            p = n // (F * Q * G)
            at_a = g * sa[0] + p * sa[1] + f
            at_b = g * sb[0] + q * sb[1] + f
            re = sign_a * 0
            im = sign_a * 0
            for k in range(K):
                z = a[at_a + k * sa[2]]
                w = b[at_b + k * sb[2]]
                re, im = multiply_add(re, im, z.real, sign_a * z.imag, w.real, sign_b * w.imag)
            out[n] = complex(re, im)
            n += step

    return native


def signatures(complex_type: str) -> dict[str, str]:
    """Numba signatures by kernel name, for compiling without a GPU; complex_type as in "complex64"."""
    real = {"complex64": "float32", "complex128": "float64"}[complex_type]
    cube, flat, strides = f"{complex_type}[:, :, ::1]", f"{complex_type}[::1]", "UniTuple(int64, 3)"
    product = f"void({cube}, {cube}, {real}, {real}, {cube})"
    native = f"void({flat}, {strides}, {flat}, {strides}, int64, int64, int64, int64, int64, {real}, {real}, {flat})"
    return {"product": product, "product3": product, "native": native, "native3": native}


def cuda(
    a: Any, b: Any, conjugate_a: bool = False, conjugate_b: bool = False, multiplications: int = 4, **where: Any
) -> Any:
    """`reference` on a GPU: contiguous device arrays in, a device array out. `where`: see `OnGpu`."""
    on, (F, P, _), Q = OnGpu.of(where, TILE), a.shape, b.shape[2]
    out, k = on.empty((F, P, Q), a.dtype), kernels(on.tile)
    kernel, grid = k.product3 if multiplications == 3 else k.product, [F, (P, on.tile), (Q, on.tile)]
    on.launch(kernel, grid, (on.tile, on.tile), a, b, _sign(conjugate_a, a), _sign(conjugate_b, b), out)
    return out


def cuda_native(
    a: tuple[Any, tuple[int, ...]],
    b: tuple[Any, tuple[int, ...]],
    sizes: tuple[int, int, int, int, int],
    conjugate_a: bool = False,
    conjugate_b: bool = False,
    multiplications: int = 4,
    **where: Any,
) -> Any:
    """`reference_native` on a GPU. a, b: a flat device array and the strides of its first three axes, in entries;
    sizes (G, P, Q, K, F); -> a flat device array, (P, G, Q, F) in memory."""
    on, (G, P, Q, _, F) = OnGpu.of(where, TILE), sizes
    out, k = on.empty((P * G * Q * F,), a[0].dtype), kernels(on.tile)
    signs = _sign(conjugate_a, a[0]), _sign(conjugate_b, b[0])
    threads = on.tile * on.tile
    blocks = min(-(-out.shape[0] // threads), 1 << 20)
    counts = [np.int64(n) for n in sizes]
    strides = [tuple(np.int64(s) for s in part[1]) for part in (a, b)]
    kernel = k.native3 if multiplications == 3 else k.native
    on.launch(kernel, blocks, threads, a[0], strides[0], b[0], strides[1], *counts, *signs, out)
    return out
