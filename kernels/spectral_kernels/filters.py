"""Filters that are small functions of frequency, evaluated while the spectra of maps are multiplied by them.

    X       (B, C, H, W//2+1) complex: half spectra of maps of H x W pixels, as rfft2 gives them
    weight  (O, C, 2, P) real: for each output and input channel the real, then the imaginary part's function
    Y       (B, O, H, W//2+1) complex: Y[b, o] = sum over c of X[b, c] * K[o, c]

A frequency has coordinates (p, q): Cartesian, p = u in [-1/2, 1/2) down and q = v in [0, 1/2] across, in cycles per
pixel; or polar, p = angle / pi in [-1/2, 1/2] (0 for waves that run across) and q = radius. A function is

    linear    P = 3: (k, a, b)              k + a p + b q
    gaussian  P = 6: (g, m, n, A, T, D)     g exp(-(A (p-m)^2 + D ((q-n) + T (p-m))^2) / 2)

The Gaussian is written with the LDL^T factors of its inverse covariance: A and D are positive where that is positive
definite, and T is the shear. On self-conjugate columns (v = 0, and v = W/2 of an even W) K is the Hermitian part
(K(u) + conj K(-u)) / 2, so that a real map stays real. The bank of O * C filters at H x W frequencies is never held.
"""

import math
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
from numba import cuda as gpu  # the form below is called `cuda`
from numba import njit, prange

from spectral_kernels.cores import Empty, numba_threads, parallel
from spectral_kernels.launch import OnGpu, device, real_type
from spectral_kernels.symmetry import hermitian_part_, is_own_mirror

TILE = 128  # threads in a block on a GPU
BATCH = 2  # maps that a GPU thread multiplies by a filter's value once it has it; 4 would take over 64 registers
ENTRIES = 256  # of one row or several that a CPU thread works on at a time: long loops, and a few rows fit its cache
OUTPUTS = 8  # whose gradients are taken while one input channel's rows are near
STRETCHES = 8  # sums for the gradients that are kept apart, so that threads do not share any

LINEAR, GAUSSIAN = 3, 6  # numbers in a function


def coordinates(H: int, W: int, polar: bool, dtype: Any = np.float64) -> tuple[np.ndarray, np.ndarray]:
    """(p, q) of every stored frequency, each (H, W//2+1)."""
    u, v = np.meshgrid(np.fft.fftfreq(H), np.arange(W // 2 + 1) / W, indexing="ij")
    if polar:
        u, v = np.arctan2(u, v) / np.pi, np.hypot(u, v)
    return u.astype(dtype), v.astype(dtype)


def _parts(weight: np.ndarray, p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """The functions' values: (..., P) -> (..., H, V)."""
    w = weight.astype(np.float64)[..., None, None]
    if weight.shape[3] == LINEAR:
        planes: np.ndarray = w[..., 0, :, :] + w[..., 1, :, :] * p + w[..., 2, :, :] * q
        return planes
    gain, m, n, A, T, D = (w[..., i, :, :] for i in range(GAUSSIAN))
    across = (q - n) + T * (p - m)
    return gain * np.exp(-0.5 * (A * (p - m) ** 2 + D * across**2))


def reference_bank(weight: np.ndarray, H: int, W: int, polar: bool) -> np.ndarray:
    """All filters: (O, C, 2, P) -> (O, C, H, W//2+1) complex128. The definition of K."""
    parts = _parts(weight, *coordinates(H, W, polar))
    return hermitian_part_(parts[:, :, 0] + 1j * parts[:, :, 1], W)


def reference(X: np.ndarray, weight: np.ndarray, width: int, polar: bool, conjugate: bool = False) -> np.ndarray:
    """(B, C, H, V), (O, C, 2, P) -> (B, O, H, V); `conjugate` multiplies by conj K. The definition."""
    K = reference_bank(weight, X.shape[2], width, polar)
    Y: np.ndarray = np.einsum("bchv,ochv->bohv", X, K.conj() if conjugate else K).astype(X.dtype)
    return Y


def reference_gradient(X: np.ndarray, G: np.ndarray, weight: np.ndarray, width: int, polar: bool) -> np.ndarray:
    """d/dweight of sum Re(conj(G) Y): X (B, C, H, V), G (B, O, H, V) -> (O, C, 2, P). The definition."""
    H, W = X.shape[2], width
    E = hermitian_part_(np.einsum("bchv,bohv->ochv", X.conj().astype(np.complex128), G), W)
    p, q = coordinates(H, W, polar)
    E2 = np.stack([E.real, E.imag], 2)  # (O, C, 2, H, V)
    if weight.shape[3] == LINEAR:
        slopes = [np.ones_like(p), p, q]
        return np.stack([(E2 * s).sum((-2, -1)) for s in slopes], -1).astype(weight.dtype)
    w = weight.astype(np.float64)[..., None, None]
    gain, m, n, A, T, D = (w[..., i, :, :] for i in range(GAUSSIAN))
    along, across = p - m, (q - n) + T * (p - m)
    e = E2 * np.exp(-0.5 * (A * along**2 + D * across**2))
    slopes = [
        np.ones_like(e),
        gain * (A * along + D * T * across),
        gain * D * across,
        -0.5 * gain * along**2,
        -gain * D * across * along,
        -0.5 * gain * across**2,
    ]
    return np.stack([(e * s).sum((-2, -1)) for s in slopes], -1).astype(weight.dtype)


# --- One frequency at a time, written once and compiled for both machines. `half` carries the type.


def _distances(p, q, m, n, T):  # type: ignore[no-untyped-def]
    """From a Gaussian's centre: along its first axis, and across, sheared."""
    along = p - m
    return along, (q - n) + T * along


def _bell(along, across, A, D, half):  # type: ignore[no-untyped-def]
    return math.exp(-half * (A * along * along + D * across * across))


def _slopes(gain, A, T, D, half, s0, s1, s2, d1, d2, sd):  # type: ignore[no-untyped-def]
    """Gradient in a Gaussian's six numbers from sums, weighted by the bell, of what its values' gradients are.

    s0 the sum itself, s1 and s2 times `across` and its square, d1 and d2 times `along` and its square, sd times both
    """
    return (
        s0,
        gain * (A * d1 + D * T * s1),
        gain * D * s1,
        -half * gain * d2,
        -gain * D * sd,
        -half * gain * s2,
    )


# --- CPU. A row of a filter is evaluated once and multiplied with that row of every map. A Cartesian Gaussian needs no
# exponential for it: exp(-(A du^2 + D (dv + T du)^2)/2) is a part of u alone, a part of v alone, both made once, and
# exp(-D T du dv), which runs along a row in equal ratios.

LANES = 8  # of the ratios' powers at a time, so that the loop is not a chain of products
SAFE_EXPONENT = 40.0  # beyond it the parts might overflow or vanish where their product does not

_distances_on_cpu, _bell_on_cpu, _slopes_on_cpu, _own_on_cpu = (
    njit(cache=True)(function) for function in (_distances, _bell, _slopes, is_own_mirror)
)


@njit(cache=True)
def _value(w, p, q, half):  # type: ignore[no-untyped-def]
    """A function at one frequency."""
    if w.size == 3:
        return w[0] + w[1] * p + w[2] * q
    along, across = _distances_on_cpu(p, q, w[1], w[2], w[4])
    return w[0] * _bell_on_cpu(along, across, w[3], w[5], half)


@njit(cache=True)
def _fill(weight, o, c, part, gain, first, p, q, down, across, half, separable, powers, out):  # type: ignore[no-untyped-def]
    """Rows from `first` on of `gain` times a Gaussian of height 1, or of a linear function -> out (entries,)."""
    V = np.uintp(p.shape[1])
    w = weight[o, c, part]
    linear, apart = w.size == 3, separable[o, c, part]
    for row in range(out.size // p.shape[1]):
        r, start = np.uintp(first + row), np.uintp(row) * V
        if linear:
            w0, w1, w2 = w[0], w[1], w[2]
            for j in range(V):
                out[start + j] = w0 + w1 * p[r, j] + w2 * q[r, j]
            continue
        m, n, A, T, D = w[1], w[2], w[3], w[4], w[5]
        if not apart:
            for j in range(V):
                along, z = _distances_on_cpu(p[r, j], q[r, j], m, n, T)
                out[start + j] = gain * _bell_on_cpu(along, z, A, D, half)
            continue
        at = gain * down[o, c, part, r]
        if T == 0:
            for j in range(V):
                out[start + j] = at * across[o, c, part, j]
            continue
        exponent = -D * T * (p[r, 0] - m)
        ratio = math.exp(exponent * (q[r, V - np.uintp(1)] - q[r, 0]) / max(p.shape[1] - 1, 1))
        power = half + half
        for k in range(LANES):
            powers[k] = power
            power *= ratio
        at *= math.exp(exponent * (q[r, 0] - n))
        for block in range(p.shape[1] // LANES):
            begin = np.uintp(block * LANES)
            for k in range(np.uintp(LANES)):
                out[start + begin + k] = at * powers[k] * across[o, c, part, begin + k]
            at *= power
        whole = np.uintp(p.shape[1] - p.shape[1] % LANES)
        for j in range(whole, V):
            out[start + j] = at * powers[j - whole] * across[o, c, part, j]


@njit(cache=True)
def _make_hermitian(weight, o, c, first, p, q, half, W, re, im):  # type: ignore[no-untyped-def]
    """Replace the entries in self-conjugate columns by K's Hermitian part."""
    H, V = p.shape
    w_re, w_im = weight[o, c, 0], weight[o, c, 1]
    for row in range(re.size // V):
        r, mirror = first + row, (H - first - row) % H
        for v in range(0, V, max(V - 1, 1)):
            if _own_on_cpu(v, W):
                value, partner = _value(w_re, p[r, v], q[r, v], half), _value(w_re, p[mirror, v], q[mirror, v], half)
                re[row * V + v] = half * (value + partner)
                value, partner = _value(w_im, p[r, v], q[r, v], half), _value(w_im, p[mirror, v], q[mirror, v], half)
                im[row * V + v] = half * (value - partner)


@njit(cache=True)
def _split(X, first, re, im):  # type: ignore[no-untyped-def]
    """Rows of all maps, real and imaginary parts apart, which is what vector units multiply."""
    V = X.shape[3]
    for b in range(X.shape[0]):
        for c in range(X.shape[1]):
            for i in range(re.shape[2]):
                x = X[b, c, first + i // V, i % V]
                re[b, c, i] = x.real
                im[b, c, i] = x.imag


@parallel(fastmath={"contract"})
def _apply(X, weight, W, p, q, down, across, separable, half, conjugate, rows, Y):  # type: ignore[no-untyped-def]
    B, C, H, V = X.shape
    O = Y.shape[1]
    for stretch in prange((H + rows - 1) // rows):
        first = stretch * rows
        entries = min(rows, H - first) * V
        n = np.uintp(entries)
        k_re, k_im, powers = np.empty(entries, p.dtype), np.empty(entries, p.dtype), np.empty(LANES, p.dtype)
        x_re, x_im = np.empty((B, C, entries), p.dtype), np.empty((B, C, entries), p.dtype)
        y_re, y_im = np.empty((B, entries), p.dtype), np.empty((B, entries), p.dtype)
        _split(X, first, x_re, x_im)
        for o in range(O):
            y_re[:] = 0
            y_im[:] = 0
            for c in range(C):
                for part, out in ((0, k_re), (1, k_im)):
                    gain = weight[o, c, part, 0]
                    _fill(weight, o, c, part, gain, first, p, q, down, across, half, separable, powers, out)
                _make_hermitian(weight, o, c, first, p, q, half, W, k_re, k_im)
                if conjugate:
                    for j in range(n):
                        k_im[j] = -k_im[j]
                for b in range(B):
                    for j in range(n):
                        a_re, a_im = x_re[b, c, j], x_im[b, c, j]
                        y_re[b, j] += a_re * k_re[j] - a_im * k_im[j]
                        y_im[b, j] += a_re * k_im[j] + a_im * k_re[j]
            for b in range(B):
                for i in range(entries):
                    Y[b, o, first + i // V, i % V] = complex(y_re[b, i], y_im[b, i])


@njit(cache=True)
def _add_gradient(weight, o, c, part, E, e, first, p, q, half, out):  # type: ignore[no-untyped-def]
    """Add what some rows of E (its real or its imaginary part) say about a function's numbers."""
    V = np.uintp(p.shape[1])
    w = weight[o, c, part]
    zero = half - half
    for row in range(E.size // p.shape[1]):
        r, start = np.uintp(first + row), np.uintp(row) * V
        s0 = s1 = s2 = d1 = d2 = sd = zero
        if w.size == 3:
            for j in range(V):
                seen = E[start + j]
                s0 += seen
                s1 += seen * p[r, j]
                s2 += seen * q[r, j]
            out[0] += s0
            out[1] += s1
            out[2] += s2
            continue
        gain, m, n, A, T, D = w[0], w[1], w[2], w[3], w[4], w[5]
        for j in range(V):
            seen = E[start + j] * e[start + j]
            along, z = _distances_on_cpu(p[r, j], q[r, j], m, n, T)
            s0 += seen
            s1 += seen * z
            s2 += seen * z * z
            d1 += seen * along
            d2 += seen * along * along
            sd += seen * z * along
        slopes = _slopes_on_cpu(gain, A, T, D, half, s0, s1, s2, d1, d2, sd)
        for k in range(6):
            out[k] += slopes[k]


@parallel(fastmath={"contract"})
def _gradient(X, G, weight, W, p, q, down, across, separable, half, rows, sums):  # type: ignore[no-untyped-def]
    """sums (stretches, O, C, 2, P) float64: what each stretch of rows adds to the gradient."""
    B, C, H, V = X.shape
    O = G.shape[1]
    for stretch in prange(sums.shape[0]):
        for first in range(stretch * rows, H, rows * sums.shape[0]):
            entries = min(rows, H - first) * V
            n = np.uintp(entries)
            e, powers = np.empty(entries, p.dtype), np.empty(LANES, p.dtype)
            E_re, E_im = np.empty(entries, p.dtype), np.empty(entries, p.dtype)
            x_re, x_im = np.empty((B, C, entries), p.dtype), np.empty((B, C, entries), p.dtype)
            g_re, g_im = np.empty((B, O, entries), p.dtype), np.empty((B, O, entries), p.dtype)
            _split(X, first, x_re, x_im)
            _split(G, first, g_re, g_im)
            for pair in range(-(-O // OUTPUTS) * C * OUTPUTS):
                o = pair // (C * OUTPUTS) * OUTPUTS + pair % OUTPUTS
                c = pair // OUTPUTS % C
                if o < O:
                    E_re[:] = 0
                    E_im[:] = 0
                    for b in range(B):
                        for j in range(n):
                            a_re, a_im, b_re, b_im = x_re[b, c, j], x_im[b, c, j], g_re[b, o, j], g_im[b, o, j]
                            E_re[j] += a_re * b_re + a_im * b_im
                            E_im[j] += a_re * b_im - a_im * b_re
                    for row in range(entries // V):  # the Hermitian part, as in K
                        mirror = (H - first - row) % H
                        for v in range(0, V, max(V - 1, 1)):
                            if _own_on_cpu(v, W):
                                re, im, i = half - half, half - half, row * V + v
                                for b in range(B):
                                    x, g = X[b, c, mirror, v], G[b, o, mirror, v]
                                    re += x.real * g.real + x.imag * g.imag
                                    im += x.real * g.imag - x.imag * g.real
                                E_re[i], E_im[i] = half * (E_re[i] + re), half * (E_im[i] - im)
                    for part, E in ((0, E_re), (1, E_im)):
                        if weight.shape[3] == 6:
                            one = half + half
                            _fill(weight, o, c, part, one, first, p, q, down, across, half, separable, powers, e)
                        _add_gradient(weight, o, c, part, E, e, first, p, q, half, sums[stretch, o, c, part])


def _rows_at_a_time(H: int, V: int) -> int:
    """So many that every thread gets as many stretches of about ENTRIES as the others."""
    threads = numba_threads()
    rounds = max(1, round(H * V / (ENTRIES * threads)))
    return -(-H // min(H, rounds * threads))


def _one_dimensional_parts(
    weight: np.ndarray, H: int, W: int, polar: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A Cartesian Gaussian's parts of u alone (O, C, 2, H) and of v alone (O, C, 2, V), and where they may be used."""
    V = W // 2 + 1
    shape = weight.shape[:3]
    if polar or weight.shape[-1] != GAUSSIAN:
        return np.zeros((*shape, H), weight.dtype), np.zeros((*shape, V), weight.dtype), np.zeros(shape, np.bool_)
    _, m, n, A, T, D = (weight[..., i, None].astype(np.float64) for i in range(GAUSSIAN))
    du, dv = np.fft.fftfreq(H) - m, np.arange(V) / W - n
    with np.errstate(over="ignore", invalid="ignore"):  # NaN and infinite parameters are left to the plain form
        down, across = -0.5 * (A + D * T**2) * du**2, -0.5 * D * dv**2
        cross = np.abs(D * T)[..., 0] * np.abs(du).max(-1) * np.abs(dv).max(-1)
        largest = np.maximum(down.max(-1), across.max(-1))
        separable = (cross <= SAFE_EXPONENT) & (largest <= SAFE_EXPONENT)
        return np.exp(down).astype(weight.dtype), np.exp(across).astype(weight.dtype), separable


def cpu(
    X: np.ndarray, weight: np.ndarray, width: int, polar: bool, conjugate: bool = False, empty: Empty = np.empty
) -> np.ndarray:
    """`reference`, compiled and spread over the cores."""
    H = X.shape[2]
    Y = empty((X.shape[0], weight.shape[0], *X.shape[2:]), X.dtype)
    parts = _one_dimensional_parts(weight, H, width, polar)
    p, q = coordinates(H, width, polar, weight.dtype)
    _apply(X, weight, width, p, q, *parts, weight.dtype.type(0.5), conjugate, _rows_at_a_time(H, X.shape[3]), Y)
    return Y


def cpu_gradient(
    X: np.ndarray, G: np.ndarray, weight: np.ndarray, width: int, polar: bool, empty: Empty = np.empty
) -> np.ndarray:
    """`reference_gradient`, compiled and spread over the cores."""
    H = X.shape[2]
    rows = _rows_at_a_time(H, X.shape[3])
    sums = np.zeros((min(STRETCHES, -(-H // rows)), *weight.shape), np.float64)
    parts = _one_dimensional_parts(weight, H, width, polar)
    p, q = coordinates(H, width, polar, weight.dtype)
    _gradient(X, G, weight, width, p, q, *parts, weight.dtype.type(0.5), rows, sums)
    gradient: np.ndarray = sums.sum(0).astype(weight.dtype)
    return gradient


# --- CUDA. A thread has one frequency; it evaluates a filter there and multiplies BATCH maps by it.


_distances_on_gpu, _bell_on_gpu, _slopes_on_gpu, _own_on_gpu = (
    device(function) for function in (_distances, _bell, _slopes, is_own_mirror)
)


@device
def _linear(w, p, q, half):  # type: ignore[no-untyped-def]
    return w[0] + w[1] * p + w[2] * q


@device
def _gaussian(w, p, q, half):  # type: ignore[no-untyped-def]
    along, across = _distances_on_gpu(p, q, w[1], w[2], w[4])
    return w[0] * _bell_on_gpu(along, across, w[3], w[5], half)


@device
def _correlation(X, G, c, o, part, f, zero):  # type: ignore[no-untyped-def]
    """Real or imaginary part of sum over maps of conj(X) G at one frequency."""
    E = zero
    for b in range(X.shape[0]):
        x, g = X[b, c, f], G[b, o, f]
        if part == 0:
            E += x.real * g.real + x.imag * g.imag
        else:
            E += x.real * g.imag - x.imag * g.real
    return E


@cache
def kernels(tile: int = TILE) -> SimpleNamespace:
    """The CUDA kernels for blocks of `tile` threads, a power of two."""
    return SimpleNamespace(
        linear=_multiplier(tile, _linear),
        gaussian=_multiplier(tile, _gaussian),
        linear_gradient=_gradient_by(tile, False),
        gaussian_gradient=_gradient_by(tile, True),
    )


def _multiplier(tile: int, value: Any) -> Any:
    @gpu.jit
    def apply(X, weight, H, W, p, q, half, sign, Y):  # type: ignore[no-untyped-def]
        """X (B, C, F), p and q (F,). Grid: tiles of frequencies, outputs, groups of BATCH maps."""
        B, C = X.shape[0], X.shape[1]
        f = gpu.blockIdx.x * tile + gpu.threadIdx.x
        V = W // 2 + 1
        if f >= H * V:
            return
        o, b = gpu.blockIdx.y, gpu.blockIdx.z * BATCH
        zero = half - half
        re0 = im0 = re1 = im1 = zero
        column = f % V
        mirror = -1
        if _own_on_gpu(column, W):
            mirror = (H - f // V) % H * V + column
        for c in range(C):
            w_re, w_im = weight[o, c, 0], weight[o, c, 1]
            k_re, k_im = value(w_re, p[f], q[f], half), value(w_im, p[f], q[f], half)
            if mirror >= 0:
                k_re = half * (k_re + value(w_re, p[mirror], q[mirror], half))
                k_im = half * (k_im - value(w_im, p[mirror], q[mirror], half))
            k_im *= sign
            x = X[b, c, f]
            re0 += x.real * k_re - x.imag * k_im
            im0 += x.real * k_im + x.imag * k_re
            if b + 1 < B:
                x = X[b + 1, c, f]
                re1 += x.real * k_re - x.imag * k_im
                im1 += x.real * k_im + x.imag * k_re
        Y[b, o, f] = complex(re0, im0)
        if b + 1 < B:
            Y[b + 1, o, f] = complex(re1, im1)

    return apply


def _gradient_by(tile: int, gaussian: bool) -> Any:
    sums = 6 if gaussian else 3

    @gpu.jit
    def gradient(X, G, weight, H, W, p, q, half, out):  # type: ignore[no-untyped-def]
        """Grid: input channels, outputs, the two parts. A block sums over all frequencies and maps."""
        shared = gpu.shared.array((sums, tile), out.dtype)
        V, t = W // 2 + 1, gpu.threadIdx.x
        c, o, part = gpu.blockIdx.x, gpu.blockIdx.y, gpu.blockIdx.z
        w, zero = weight[o, c, part], half - half
        s0 = s1 = s2 = d1 = d2 = sd = zero
        for f in range(t, H * V, tile):
            E = _correlation(X, G, c, o, part, f, zero)
            column = f % V
            if _own_on_gpu(column, W):
                partner = _correlation(X, G, c, o, part, (H - f // V) % H * V + column, zero)
                if part == 1:
                    partner = -partner
                E = half * (E + partner)
            along, z = p[f], q[f]
            if gaussian:
                along, z = _distances_on_gpu(p[f], q[f], w[1], w[2], w[4])
                E *= _bell_on_gpu(along, z, w[3], w[5], half)
                s2 += E * z * z
                d2 += E * along * along
                sd += E * z * along
            s0 += E
            s1 += E * z
            d1 += E * along
        shared[0, t], shared[1, t], shared[2, t] = s0, d1, s1
        if gaussian:
            shared[3, t], shared[4, t], shared[5, t] = s2, d2, sd
        gpu.syncthreads()
        stride = tile // 2
        while stride > 0:
            if t < stride:
                for k in range(sums):
                    shared[k, t] += shared[k, t + stride]
            gpu.syncthreads()
            stride //= 2
        if t == 0:
            s0, d1, s1 = shared[0, 0], shared[1, 0], shared[2, 0]
            if gaussian:
                s2, d2, sd = shared[3, 0], shared[4, 0], shared[5, 0]
                s0, d1, s1, d2, sd, s2 = _slopes_on_gpu(w[0], w[3], w[4], w[5], half, s0, s1, s2, d1, d2, sd)
                out[o, c, part, 3], out[o, c, part, 4], out[o, c, part, 5] = d2, sd, s2
            out[o, c, part, 0], out[o, c, part, 1], out[o, c, part, 2] = s0, d1, s1

    return gradient


def signatures(complex_type: str) -> dict[str, str]:
    """Numba signatures by kernel name, for compiling without a GPU; complex_type as in "complex64"."""
    real = {"complex64": "float32", "complex128": "float64"}[complex_type]
    maps, weight, plane = f"{complex_type}[:, :, ::1]", f"{real}[:, :, :, ::1]", f"{real}[::1]"
    apply = f"void({maps}, {weight}, int32, int32, {plane}, {plane}, {real}, {real}, {maps})"
    gradient = f"void({maps}, {maps}, {weight}, int32, int32, {plane}, {plane}, {real}, {weight})"
    return {"linear": apply, "gaussian": apply, "linear_gradient": gradient, "gaussian_gradient": gradient}


def _geometry(width: int, planes: tuple[Any, ...], X: Any) -> tuple[Any, ...]:
    """H, W, the coordinates of every frequency, and one half in the type of the parts."""
    flat = (plane.reshape((plane.shape[0] * plane.shape[1],)) for plane in planes)
    return np.int32(X.shape[2]), np.int32(width), *flat, real_type(X)(0.5)


def _flat(X: Any) -> Any:
    """(B, C, H, V) -> (B, C, F)."""
    return X.reshape((X.shape[0], X.shape[1], X.shape[2] * X.shape[3]))


def cuda(X: Any, weight: Any, width: int, planes: tuple[Any, ...], conjugate: bool = False, **where: Any) -> Any:
    """`reference` on a GPU: device arrays in and out; `planes` are the coordinates there. `where`: see `OnGpu`."""
    on, (B, _, H, V), O = OnGpu.of(where, TILE), X.shape, weight.shape[0]
    Y, k = on.empty((B, O, H, V), X.dtype), kernels(on.tile)
    if B and O:
        kernel, grid = k.linear if weight.shape[3] == LINEAR else k.gaussian, [(H * V, on.tile), O, (B, BATCH)]
        sign = real_type(X)(-1 if conjugate else 1)
        on.launch(kernel, grid, on.tile, _flat(X), weight, *_geometry(width, planes, X), sign, _flat(Y))
    return Y


def cuda_gradient(X: Any, G: Any, weight: Any, width: int, planes: tuple[Any, ...], **where: Any) -> Any:
    """`reference_gradient` on a GPU: device arrays in and out."""
    on, (O, C) = OnGpu.of(where, TILE), weight.shape[:2]
    out, k = on.empty(tuple(weight.shape), real_type(X)), kernels(on.tile)
    if O and C:
        kernel = k.linear_gradient if weight.shape[3] == LINEAR else k.gaussian_gradient
        on.launch(kernel, [C, O, 2], on.tile, _flat(X), _flat(G), weight, *_geometry(width, planes, X), out)
    return out
