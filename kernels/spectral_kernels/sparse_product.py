"""Multiply sparse maps by filters at every frequency and sum over the input channels: what is zero costs nothing.

    out[f, p, q] = sum_k a[f, p, k] b[f, k, q]                  (F, P, K), (2, F, K, Q) -> (F, P, Q)

and the gradient in the filters, a sum over the maps of both:

    out[f, k, q] = sum_p conj(a[f, p, k]) b[f, p, q]            (F, P, K), (F, P, Q) -> (2, F, K, Q)

Maps are complex, with zeros where a threshold dropped something. Filters are real and imaginary parts, each of them in
one piece: so they come out of real matrix products, and so a processor multiplies many outputs at a time.
A zero of a map meets nothing: neither a filter that is NaN or infinite there, nor such a number of the other map.

For the CPU alone; on a GPU `product` multiplies the zeros too.
"""

import numpy as np
from numba import prange

from spectral_kernels.cores import Empty, parallel


def reference(a: np.ndarray, b: np.ndarray, conjugate: bool = False) -> np.ndarray:
    """(F, P, K) complex, (2, F, K, Q) real -> (F, P, Q) complex. The definition; summed in float64."""
    b_re, b_im = b.astype(np.float64)[:, :, None]
    return _sum(a[..., None], b_re, -b_im if conjugate else b_im, a[..., None] != 0, axis=2).astype(a.dtype)


def reference_gradient(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(F, P, K), (F, P, Q) complex -> (2, F, K, Q) real. The definition; summed in float64."""
    a, b = a[..., None], b[:, :, None]
    wide = _sum(a.conj(), b.real.astype(np.float64), b.imag.astype(np.float64), (a != 0) & (b != 0), axis=1)
    return np.stack([wide.real, wide.imag]).astype(a.real.dtype)


def _sum(a: np.ndarray, b_re: np.ndarray, b_im: np.ndarray, counts: np.ndarray, axis: int) -> np.ndarray:
    """Sum of a b over those products that count. By real parts: complex arithmetic makes NaN of infinity times 1."""
    a_re, a_im = a.real.astype(np.float64), a.imag.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        re = np.where(counts, a_re * b_re - a_im * b_im, 0).sum(axis)
        im = np.where(counts, a_im * b_re + a_re * b_im, 0).sum(axis)
    out = np.empty(re.shape, np.complex128)
    out.real, out.imag = re, im  # not re + 1j * im, which makes NaN of an infinite im
    return out


# Fused multiply-adds may round otherwise than the reference does, never worse.


@parallel(fastmath={"contract"})
def _product(a, b, sign, out):  # type: ignore[no-untyped-def]
    for index in prange(a.shape[0]):
        f = np.uintp(index)
        Q = np.uintp(b.shape[3])
        re_sum, im_sum = np.empty(Q, b.dtype), np.empty(Q, b.dtype)
        for p in range(np.uintp(a.shape[1])):
            re_sum[:] = 0
            im_sum[:] = 0
            for k in range(np.uintp(a.shape[2])):
                re, im = a[f, p, k].real, a[f, p, k].imag
                if re == 0 and im == 0:
                    continue
                turned_re, turned_im = sign * re, sign * im
                w_re, w_im = b[0, f, k], b[1, f, k]
                for q in range(Q):
                    re_sum[q] += re * w_re[q] - turned_im * w_im[q]
                    im_sum[q] += im * w_re[q] + turned_re * w_im[q]
            for q in range(Q):
                out[f, p, q] = complex(re_sum[q], im_sum[q])


@parallel(fastmath={"contract"})
def _gradient(a, b, out):  # type: ignore[no-untyped-def]
    for index in prange(a.shape[0]):
        f = np.uintp(index)
        Q = np.uintp(b.shape[2])
        b_re, b_im = np.empty(Q, out.dtype), np.empty(Q, out.dtype)
        out[0, f] = 0
        out[1, f] = 0
        for p in range(np.uintp(a.shape[1])):
            some = False
            for q in range(Q):
                b_re[q], b_im[q] = b[f, p, q].real, b[f, p, q].imag
                some |= b_re[q] != 0 or b_im[q] != 0
            if not some:
                continue
            for k in range(np.uintp(a.shape[2])):
                re, im = a[f, p, k].real, a[f, p, k].imag
                if re == 0 and im == 0:
                    continue
                to_re, to_im = out[0, f, k], out[1, f, k]
                if np.isfinite(re) and np.isfinite(im):  # zeros may then be added, which is quicker than to ask
                    for q in range(Q):
                        to_re[q] += re * b_re[q] + im * b_im[q]
                        to_im[q] += re * b_im[q] - im * b_re[q]
                else:
                    for q in range(Q):
                        if b_re[q] != 0 or b_im[q] != 0:
                            to_re[q] += re * b_re[q] + im * b_im[q]
                            to_im[q] += re * b_im[q] - im * b_re[q]


def cpu(a: np.ndarray, b: np.ndarray, conjugate: bool = False, empty: Empty = np.empty) -> np.ndarray:
    """`reference`, compiled and spread over the cores."""
    out = empty((*a.shape[:2], b.shape[3]), a.dtype)
    _product(np.ascontiguousarray(a), np.ascontiguousarray(b), b.dtype.type(-1 if conjugate else 1), out)
    return out


def cpu_gradient(a: np.ndarray, b: np.ndarray, empty: Empty = np.empty) -> np.ndarray:
    """`reference_gradient`, compiled and spread over the cores."""
    out = empty((2, a.shape[0], a.shape[2], b.shape[2]), a.real.dtype)
    _gradient(np.ascontiguousarray(a), np.ascontiguousarray(b), out)
    return out
