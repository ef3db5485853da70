"""Spectral pooling of half spectra in one pass over memory: crop, fold the Nyquist lines, cut off; and its transpose.

    X  (N, H, W//2+1) complex: half spectra of N real maps of H x W pixels, as rfft2 gives them
    Y  (N, h, w//2+1) complex: half spectra of maps of h x w pixels, h <= H and w <= W

A map of even height h has one row for the waves of h/2 turns, where the larger map has two, at +h/2 and -h/2. The two
rows are added: Y[h/2] = g_h * (X[h/2] + X[-h/2]); columns likewise, with g_w. The weights `nyquist` are (g_h, g_w);
(1, 1) is Fourier resampling as SciPy does it. The band (b_h, b_w) keeps |u| <= b_h and v <= b_w of Y; `scale`
multiplies everything.

Self-conjugate columns (v = 0, and v = w/2 of an even w) come out exactly Hermitian: they are the Hermitian
part (Z(u) + conj Z(-u)) / 2 of what a transform leaves a rounding apart, or, folded, g_w * (Z(u) + conj Z(-u)).
`unpool` is the exact transpose of `pool`, the stored numbers taken as real and imaginary parts. Enlarging a map splits
its Nyquist lines in halves: that is `unpool` with nyquist=(1/2, 1/4), for the stored column stands for two.
"""

from types import SimpleNamespace
from typing import Any

import numpy as np
from numba import cuda as gpu  # the form below is called `cuda`
from numba import int64, njit, prange

from spectral_kernels.cores import Empty, parallel
from spectral_kernels.launch import OnGpu, device, real_type
from spectral_kernels.symmetry import hermitian_part_, is_own_mirror

TILE = 256  # threads in a block on a GPU

Pair = tuple[int, int]
Weights = tuple[float, float]


def _row_sources(H: int, h: int, r: int) -> list[int]:
    """The rows of X that fall on row r of Y."""
    if 2 * r == h and h < H:
        return [r, H - r]
    return [r if 2 * r <= h else H - h + r]


def _rows_apart(H: int, h: int, band: int, weight: float) -> np.ndarray:
    """The rows' part as a matrix: (h, H)."""
    rows = np.zeros((h, H))
    for r in range(h):
        if min(r, h - r) <= band:
            sources = _row_sources(H, h, r)
            rows[r, sources] = weight if len(sources) == 2 else 1.0
    return rows


def _factors(W: int, w: int, weight: float) -> tuple[float, float]:
    """Factors of the self-conjugate columns, 0 and w/2, whose coefficients are added to their partners."""
    return 0.5, weight if w < W else 0.5


def reference(X: np.ndarray, width: int, size: Pair, band: Pair, nyquist: Weights, scale: float) -> np.ndarray:
    """(N, H, W//2+1), W = width, size (h, w) -> (N, h, w//2+1). The definition."""
    h, w = size
    Z = np.einsum("rH,nHv->nrv", _rows_apart(X.shape[1], h, band[0], nyquist[0]), X[:, :, : w // 2 + 1])
    hermitian_part_(Z, w, _factors(width, w, nyquist[1]))
    Z[:, :, band[1] + 1 :] = 0
    Y: np.ndarray = (scale * Z).astype(X.dtype)
    return Y


def reference_unpool(Y: np.ndarray, width: int, size: Pair, band: Pair, nyquist: Weights, scale: float) -> np.ndarray:
    """(N, h, w//2+1), w = width, size (H, W) -> (N, H, W//2+1): the transpose of `reference`. The definition."""
    (H, W), h = size, Y.shape[1]
    Z = Y.astype(np.complex128)
    Z[:, :, band[1] + 1 :] = 0
    hermitian_part_(Z, width, _factors(W, width, nyquist[1]))
    X = np.zeros((Y.shape[0], H, W // 2 + 1), Y.dtype)
    X[:, :, : Z.shape[2]] = scale * np.einsum("rH,nrv->nHv", _rows_apart(H, h, band[0], nyquist[0]), Z)
    return X


# --- One entry, or one row, at a time: written once and compiled for both machines.


def _folded(X, n, r, h, v, g_h):  # type: ignore[no-untyped-def]
    """Entry (r, v) of X after the rows' fold."""
    H = X.shape[1]
    if 2 * r == h and h < H:
        a, b = X[n, r, v], X[n, H - r, v]
        return g_h * (a.real + b.real), g_h * (a.imag + b.imag)
    row = r
    if 2 * r > h:
        row = H - h + r
    a = X[n, row, v]
    return a.real, a.imag


def _target(row, H, h):  # type: ignore[no-untyped-def]
    """The row of Y that a row of X is part of; -1 if none."""
    if 2 * row <= h:
        return row
    if 2 * (H - row) <= h:
        return h - (H - row)
    return -1


# --- CPU. Whole rows are copied; the two self-conjugate columns are written again afterwards.

_folded_on_cpu, _target_on_cpu = njit(inline="always")(_folded), njit(inline="always")(_target)


@parallel()
def _pool(X, W, w, b_h, b_w, g_h, g_w, half, scale, Y):  # type: ignore[no-untyped-def]
    N, H, h, columns = X.shape[0], X.shape[1], Y.shape[1], Y.shape[2]
    kept = np.uintp(min(columns, b_w + 1))
    for n in prange(N):
        for r in range(h):
            if min(r, h - r) > b_h:
                Y[n, r] = 0
                continue
            if 2 * r == h and h < H:
                top, bottom = np.uintp(r), np.uintp(H - r)
                for v in range(kept):
                    a, b = X[n, top, v], X[n, bottom, v]
                    Y[n, r, v] = complex(scale * (g_h * (a.real + b.real)), scale * (g_h * (a.imag + b.imag)))
            else:
                source = np.uintp(r if 2 * r <= h else H - h + r)
                for v in range(kept):
                    a = X[n, source, v]
                    Y[n, r, v] = complex(scale * a.real, scale * a.imag)
            Y[n, r, kept:] = 0
            mirror = (h - r) % h
            re, im = _folded_on_cpu(X, n, r, h, 0, g_h)
            mirror_re, mirror_im = _folded_on_cpu(X, n, mirror, h, 0, g_h)
            Y[n, r, 0] = complex(scale * (half * (re + mirror_re)), scale * (half * (im - mirror_im)))
            if w % 2 == 0 and w // 2 <= b_w:
                weight = g_w if w < W else half
                re, im = _folded_on_cpu(X, n, r, h, w // 2, g_h)
                mirror_re, mirror_im = _folded_on_cpu(X, n, mirror, h, w // 2, g_h)
                Y[n, r, w // 2] = complex(scale * (weight * (re + mirror_re)), scale * (weight * (im - mirror_im)))


@parallel()
def _unpool(Y, w, W, b_h, b_w, g_h, g_w, half, scale, X):  # type: ignore[no-untyped-def]
    N, h, columns, H = Y.shape[0], Y.shape[1], Y.shape[2], X.shape[1]
    kept = np.uintp(min(columns, b_w + 1))
    for n in prange(N):
        for row in range(H):
            r, factor = _target_on_cpu(row, H, h), scale
            if r < 0 or min(r, h - r) > b_h:
                X[n, row] = 0
                continue
            if 2 * r == h and h < H:
                factor = scale * g_h
            for v in range(kept):
                a = Y[n, np.uintp(r), v]
                X[n, row, v] = complex(factor * a.real, factor * a.imag)
            X[n, row, kept:] = 0
            mirror = (h - r) % h
            a, b = Y[n, r, 0], Y[n, mirror, 0]
            X[n, row, 0] = complex(factor * (half * (a.real + b.real)), factor * (half * (a.imag - b.imag)))
            if w % 2 == 0 and w // 2 <= b_w:
                weight = g_w if w < W else half
                a, b = Y[n, r, w // 2], Y[n, mirror, w // 2]
                X[n, row, w // 2] = complex(
                    factor * (weight * (a.real + b.real)), factor * (weight * (a.imag - b.imag))
                )


def _scalars(like: Any, band: Pair, nyquist: Weights, scale: float) -> list[Any]:
    real = real_type(like)
    return [*(np.int32(b) for b in band), *(real(g) for g in nyquist), real(0.5), real(scale)]


def cpu(
    X: np.ndarray, width: int, size: Pair, band: Pair, nyquist: Weights, scale: float, empty: Empty = np.empty
) -> np.ndarray:
    """`reference`, compiled and spread over the cores."""
    h, w = size
    Y = empty((X.shape[0], h, w // 2 + 1), X.dtype)
    _pool(X, width, w, *_scalars(X, band, nyquist, scale), Y)
    return Y


def cpu_unpool(
    Y: np.ndarray, width: int, size: Pair, band: Pair, nyquist: Weights, scale: float, empty: Empty = np.empty
) -> np.ndarray:
    """`reference_unpool`, compiled and spread over the cores."""
    H, W = size
    X = empty((Y.shape[0], H, W // 2 + 1), Y.dtype)
    _unpool(Y, width, W, *_scalars(Y, band, nyquist, scale), X)
    return X


# --- CUDA: a thread for each entry written, so that writes and nearly all reads run along neighbouring addresses.


_folded_on_gpu, _target_on_gpu, _own_on_gpu = device(_folded), device(_target), device(is_own_mirror)


@gpu.jit
def _pool_on_gpu(X, W, w, b_h, b_w, g_h, g_w, half, scale, Y):  # type: ignore[no-untyped-def]
    """X (N, H, W//2+1) -> Y (N, h, w//2+1)."""
    h, columns = Y.shape[1], Y.shape[2]
    i = int64(gpu.blockIdx.x) * gpu.blockDim.x + gpu.threadIdx.x
    if i >= int64(Y.shape[0]) * h * columns:
        return
    v, r, n = i % columns, i // columns % h, i // columns // h
    if min(r, h - r) > b_h or v > b_w:
        Y[n, r, v] = complex(0 * scale, 0 * scale)
        return
    re, im = _folded_on_gpu(X, n, r, h, v, g_h)
    if _own_on_gpu(v, w):
        weight = half
        if v > 0 and w < W:
            weight = g_w
        mirror_re, mirror_im = _folded_on_gpu(X, n, (h - r) % h, h, v, g_h)
        re, im = weight * (re + mirror_re), weight * (im - mirror_im)
    Y[n, r, v] = complex(scale * re, scale * im)


@gpu.jit
def _unpool_on_gpu(Y, w, W, b_h, b_w, g_h, g_w, half, scale, X):  # type: ignore[no-untyped-def]
    """Y (N, h, w//2+1) -> X (N, H, W//2+1), zeros included."""
    h, H, columns = Y.shape[1], X.shape[1], X.shape[2]
    i = int64(gpu.blockIdx.x) * gpu.blockDim.x + gpu.threadIdx.x
    if i >= int64(X.shape[0]) * H * columns:
        return
    v, row, n = i % columns, i // columns % H, i // columns // H
    r = int64(_target_on_gpu(row, H, h))
    if r < 0 or min(r, h - r) > b_h or v > b_w or v >= Y.shape[2]:
        X[n, row, v] = complex(0 * scale, 0 * scale)
        return
    factor = scale
    if 2 * r == h and h < H:
        factor = scale * g_h
    a = Y[n, r, v]
    re, im = a.real, a.imag
    if _own_on_gpu(v, w):
        weight = half
        if v > 0 and w < W:
            weight = g_w
        b = Y[n, (h - r) % h, v]
        re, im = weight * (re + b.real), weight * (im - b.imag)
    X[n, row, v] = complex(factor * re, factor * im)


def kernels(tile: int = TILE) -> SimpleNamespace:
    """The CUDA kernels; they run with any block size, of which `tile` is the one to launch with."""
    return SimpleNamespace(pool=_pool_on_gpu, unpool=_unpool_on_gpu)


def signatures(complex_type: str) -> dict[str, str]:
    """Numba signatures by kernel name, for compiling without a GPU; complex_type as in "complex64"."""
    real = {"complex64": "float32", "complex128": "float64"}[complex_type]
    spectra = f"{complex_type}[:, :, ::1]"
    each = f"void({spectra}, int32, int32, int32, int32, {real}, {real}, {real}, {real}, {spectra})"
    return {"pool": each, "unpool": each}


def _launched(kernel: Any, source: Any, numbers: list[Any], target: Any, on: OnGpu) -> Any:
    entries = target.shape[0] * target.shape[1] * target.shape[2]
    on.launch(kernel, (entries, on.tile), on.tile, source, *numbers, target)
    return target


def cuda(X: Any, width: int, size: Pair, band: Pair, nyquist: Weights, scale: float, **where: Any) -> Any:
    """`reference` on a GPU: a device array in, a device array out. `where`: see `OnGpu`."""
    on, (h, w) = OnGpu.of(where, TILE), size
    Y = on.empty((X.shape[0], h, w // 2 + 1), X.dtype)
    numbers = [np.int32(width), np.int32(w), *_scalars(X, band, nyquist, scale)]
    return _launched(_pool_on_gpu, X, numbers, Y, on)


def cuda_unpool(Y: Any, width: int, size: Pair, band: Pair, nyquist: Weights, scale: float, **where: Any) -> Any:
    """`reference_unpool` on a GPU: a device array in, a device array out."""
    on, (H, W) = OnGpu.of(where, TILE), size
    X = on.empty((Y.shape[0], H, W // 2 + 1), Y.dtype)
    numbers = [np.int32(width), np.int32(W), *_scalars(Y, band, nyquist, scale)]
    return _launched(_unpool_on_gpu, Y, numbers, X, on)
