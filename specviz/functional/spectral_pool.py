"""Resize maps in the Fourier domain: spectral pooling, its inverse, and frequency dropout (Rippel et al. 2015).

All of them are one linear operation along each axis: transform, keep the low frequencies, transform back at another
size. For a map of ordinary size it is quickest as a product with one small real matrix for each axis; for a large one,
by FFT. Both are the same function, and the backward pass is the exact transpose.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any, Literal, get_args

import torch
from spectral_kernels import dispatch
from spectral_kernels.dispatch import constant
from torch import Tensor

from specviz.functional.band_limited.plan import fast_size
from specviz.functional.precision import no_autocast

Nyquist = Literal["sum", "root", "mean", "drop"]
Algorithm = Literal["auto", "gemm", "fft"]
ALGORITHMS: tuple[str, ...] = get_args(Algorithm)

# An even size has one Nyquist line where the larger map has two. What their sum is multiplied by:
NYQUIST: dict[str, float] = {
    "sum": 1.0,  # both are kept: SciPy's resampling, and ours
    "root": math.sqrt(0.5),  # as in Jain, Samet & Wainger's replication of the paper
    "mean": 0.5,  # their average
    "drop": 0.0,
}

Size = tuple[int, int]


def band_of(cutoff: float, n: int) -> int:
    """The highest frequency of an axis of n pixels that a cut-off in [0, 1] keeps: |f| <= cutoff * (1 + n/2)."""
    return min(n // 2, math.floor(cutoff * (1 + n / 2)))


def _matrix(n: int, m: int, band: int, nyquist: float, dtype: torch.dtype, device: torch.device) -> tuple[Tensor]:
    """Fourier resampling of n samples to m as a matrix: (m, n). `band` is the highest frequency that stays."""
    shorter = min(n, m)
    highest = min(shorter // 2, band)
    f = torch.arange(highest + 1, device=device)
    weights = torch.full((highest + 1,), 2.0 / n, dtype=torch.float64, device=device)
    weights[0] = 1.0 / n
    if highest > 0 and 2 * highest == shorter:
        # Shrinking, two waves fall on one; enlarging, one is split into two halves; at equal size it is one and stays.
        weights[-1] = 2.0 * nyquist / n if n > m else 1.0 / n
    # Angles are reduced as integers first: f * i is exact, and so is its remainder.
    there, here = (
        (torch.outer(torch.arange(size, device=device), f) % size).double() * (2 * math.pi / size) for size in (m, n)
    )
    waves = (there.cos() * weights) @ here.cos().mT + (there.sin() * weights) @ here.sin().mT
    return (waves.to(dtype),)


# Multiply-adds of a matrix product that take as long as an FFT's work for a pixel and binary logarithm, and how much
# longer a size with a large prime factor takes. Fitted to square maps of 8 to 860 pixels, forward and backward, on two
# threads: matrices are 1.3 to 5 times quicker up to 224 pixels; from 384 on it depends on the two sizes.
FFT_COST, ROUGH_SIZE = 20.0, 2.0

# Tiny maps are one product with one matrix, which does up to this many times the work of two without their overhead.
ONE_MATRIX = 4


def choose_algorithm(size: Size, new: Size) -> Algorithm:
    """The quicker one of "gemm" and "fft", by the work they have to do."""
    (H, W), (h, w) = size, new
    products = h * H * W + h * W * w
    transforms = sum(
        FFT_COST * (1 if all(fast_size(n) == n for n in sides) else ROUGH_SIZE) * pixels * math.log2(max(pixels, 2)) / 2
        for sides, pixels in ((size, H * W), (new, h * w))
    )
    return "gemm" if products <= transforms else "fft"


def _by_gemm(x: Tensor, new: Size, bands: Size, nyquist: float) -> Tensor:
    (H, W), (h, w) = x.shape[-2:], new
    (down,) = constant(_matrix, H, h, bands[0], nyquist, x.dtype, x.device)
    (across,) = constant(_matrix, W, w, bands[1], nyquist, x.dtype, x.device)
    rows_first, columns_first = h * H * W + h * W * w, H * W * w + h * H * w
    if h * w * H * W <= ONE_MATRIX * min(rows_first, columns_first):
        return (x.flatten(-2) @ torch.kron(down, across).mT).unflatten(-1, new)
    if rows_first <= columns_first:
        return torch.matmul(torch.matmul(down, x), across.mT)
    return torch.matmul(down, torch.matmul(x, across.mT))


class _ByFFT(torch.autograd.Function):
    """Transform, pool or unpool the spectrum, transform back: (N, H, W) -> (N, h, w). Linear; keeps nothing of x.

    torch's own rfft would transform the whole plane for its backward; the transpose here is one more like it.
    transposed  apply the transpose of the resizing that goes from `new` to x's size
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, new: Size, bands: Size, nyquist: float, transposed: bool) -> Tensor:
        size = (x.shape[-2], x.shape[-1])
        grows = new[0] > size[0] or new[1] > size[1]
        # Shrinking weighs the sum of two Nyquist lines; enlarging, and its transpose, splits one in halves.
        weight = 0.5 if grows != transposed else nyquist
        scale = 1.0 if transposed else math.prod(new) / math.prod(size)
        X = torch.fft.rfft2(x)
        if grows:
            X = dispatch.unpool(X, size[1], new, bands, (weight, weight / 2), scale)
        else:
            X = dispatch.pool(X, size[1], new, bands, (weight, weight), scale)
        return torch.fft.irfft2(X, s=new)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, _, *rest, transposed = inputs
        ctx.arguments = (x.shape[-2], x.shape[-1]), *rest, not transposed

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return _ByFFT.apply(grad, *ctx.arguments), None, None, None, None


def _resample(x: Tensor, new: Size, bands: Size, nyquist: float, algorithm: Algorithm) -> Tensor:
    """(..., H, W) -> (..., h, w); no axis grows while the other shrinks."""
    if x.numel() == 0:
        return x.sum((-2, -1), keepdim=True).expand(*x.shape[:-2], *new).clone()
    chosen = algorithm
    if algorithm == "auto":  # the meta device, which knows shapes only, has no kernels
        chosen = "gemm" if x.is_meta else choose_algorithm((x.shape[-2], x.shape[-1]), new)
    half = x.dtype in (torch.float16, torch.bfloat16)
    with no_autocast(x.device.type):  # a mean over many pixels is no place for 8 bits
        values = x.float() if half else x
        if chosen == "gemm":
            y = _by_gemm(values, new, bands, nyquist)
        else:
            flat = values.reshape(math.prod(x.shape[:-2]), *x.shape[-2:])
            y = _ByFFT.apply(flat, new, bands, nyquist, False).reshape(*x.shape[:-2], *new)
    return y.to(x.dtype) if half else y


def _check(name: str, x: Tensor, dims: int, algorithm: str, nyquist: str = "sum") -> None:
    axes = "(..., H, W)" if dims == 2 else "(..., L)"
    if x.is_complex() or not x.is_floating_point():
        raise TypeError(f"{name} takes real floating-point maps, not {x.dtype}; convert with .float()")
    if x.ndim < dims or 0 in x.shape[-dims:]:
        raise ValueError(f"{name} takes maps {axes} of at least one pixel, got {tuple(x.shape)}")
    if algorithm not in ALGORITHMS:
        raise ValueError(f"algorithm={algorithm!r} is unknown; pick one of {', '.join(ALGORITHMS)}")
    if nyquist not in NYQUIST:
        raise ValueError(f"nyquist={nyquist!r} is unknown; pick one of {', '.join(NYQUIST)}")


def check_cutoff(cutoff: float | None) -> None:
    """Raise ValueError unless the cut-off is None or lies in [0, 1]."""
    if cutoff is not None and not (isinstance(cutoff, Real) and 0 <= float(cutoff) <= 1):
        raise ValueError(f"cutoff={cutoff!r} must lie in [0, 1]: the share of the frequencies that stay; 1 keeps all")


def whole_sizes(name: str, size: int | Sequence[int], dims: int) -> tuple[int, ...]:
    """`size` as `dims` whole numbers of pixels, each at least 1; ValueError otherwise."""
    given: tuple[Any, ...] = tuple(size) if hasattr(size, "__len__") else (size,) * dims  # type: ignore[arg-type]
    if len(given) != dims or any(
        isinstance(n, bool) or not isinstance(n, Real) or not float(n) >= 1 or float(n) % 1 for n in given
    ):
        example = "16 or (16, 12)" if dims == 2 else "16"
        raise ValueError(f"{name}: size={size!r} must be whole pixels, at least 1, such as {example}")
    return tuple(int(n) for n in given)


def _bands(new: tuple[int, ...], cutoff: float | None) -> Size:
    check_cutoff(cutoff)
    h, w = new
    return (h, w) if cutoff is None else (band_of(cutoff, h), band_of(cutoff, w))


def spectral_pool2d(
    x: Tensor,
    size: int | Sequence[int],
    *,
    cutoff: float | None = None,
    nyquist: Nyquist = "sum",
    algorithm: Algorithm = "auto",
) -> Tensor:
    """Shrink maps by keeping only their low frequencies: x (..., H, W) real -> (..., h, w), same units.

    size       (h, w) in pixels, h <= H and w <= W, or one number for both; a larger one raises ValueError
    cutoff     frequency dropout in the same pass: frequency f of an axis stays if |f| <= cutoff * (1 + n/2), n pooled
    nyquist    what becomes of the two lines of frequency n/2 that fall on each other where n is even: "sum" (SciPy's
               resampling), "root" (times sqrt(1/2), as a replication does), "mean" or "drop"
    algorithm  "auto", "gemm" or "fft"; the same result beyond rounding

    The mean of every map is preserved, the result is real, and it equals `scipy.signal.resample` along both axes.
    Rippel, Snoek & Adams (2015). The paper crops the full spectrum; a product with the matrix that this amounts to
    needs no spectrum.
    """
    _check("spectral_pool2d", x, 2, algorithm, nyquist)
    h, w = whole_sizes("spectral_pool2d", size, 2)
    H, W = x.shape[-2:]
    if h > H or w > W:
        raise ValueError(
            f"spectral_pool2d cannot enlarge: size=({h}, {w}) for a {H}x{W} map. "
            f"Pick size <= ({H}, {W}), or use spectral_pad2d to enlarge."
        )
    return _resample(x, (h, w), _bands((h, w), cutoff), NYQUIST[nyquist], algorithm)


def spectral_pool1d(
    x: Tensor,
    size: int | Sequence[int],
    *,
    cutoff: float | None = None,
    nyquist: Nyquist = "sum",
    algorithm: Algorithm = "auto",
) -> Tensor:
    """`spectral_pool2d` along one axis: x (..., L) real -> (..., l), l <= L."""
    _check("spectral_pool1d", x, 1, algorithm, nyquist)
    (new,) = whole_sizes("spectral_pool1d", size, 1)
    if new > x.shape[-1]:
        raise ValueError(
            f"spectral_pool1d cannot enlarge: size={new} for a series of {x.shape[-1]}. "
            f"Pick size <= {x.shape[-1]}, or use spectral_pad1d to enlarge."
        )
    return _resample(x[..., None, :], (1, new), _bands((1, new), cutoff), NYQUIST[nyquist], algorithm)[..., 0, :]


def spectral_pad2d(x: Tensor, size: int | Sequence[int], *, algorithm: Algorithm = "auto") -> Tensor:
    """Enlarge maps by adding high frequencies that are zero: x (..., H, W) real -> (..., h, w), h >= H and w >= W.

    The smoothest map through the pixels: `spectral_pool2d(spectral_pad2d(x, size), x.shape[-2:])` is x. It equals
    `scipy.signal.resample` along both axes: the Nyquist lines of an even size are split in halves.
    """
    _check("spectral_pad2d", x, 2, algorithm)
    h, w = whole_sizes("spectral_pad2d", size, 2)
    H, W = x.shape[-2:]
    if h < H or w < W:
        raise ValueError(
            f"spectral_pad2d cannot shrink: size=({h}, {w}) for a {H}x{W} map. "
            f"Pick size >= ({H}, {W}), or use spectral_pool2d to shrink."
        )
    return _resample(x, (h, w), (h, w), 1.0, algorithm)


def spectral_pad1d(x: Tensor, size: int | Sequence[int], *, algorithm: Algorithm = "auto") -> Tensor:
    """`spectral_pad2d` along one axis: x (..., L) real -> (..., l), l >= L."""
    _check("spectral_pad1d", x, 1, algorithm)
    (new,) = whole_sizes("spectral_pad1d", size, 1)
    if new < x.shape[-1]:
        raise ValueError(
            f"spectral_pad1d cannot shrink: size={new} for a series of {x.shape[-1]}. "
            f"Pick size >= {x.shape[-1]}, or use spectral_pool1d to shrink."
        )
    return _resample(x[..., None, :], (1, new), (1, new), 1.0, algorithm)[..., 0, :]


def frequency_dropout2d(x: Tensor, cutoff: float, *, algorithm: Algorithm = "auto") -> Tensor:
    """Set the high frequencies of maps to zero: x (..., H, W) real -> the same shape; the mean stays.

    cutoff  in [0, 1]: frequency f of an axis of n pixels stays if |f| <= cutoff * (1 + n/2). 1 keeps all, 0 the mean

    A brick-wall low pass on every map alike. Rippel, Snoek & Adams (2015), section 4.2; the layer draws the cut-off.
    """
    _check("frequency_dropout2d", x, 2, algorithm)
    check_cutoff(cutoff)
    size = (x.shape[-2], x.shape[-1])
    bands = _bands(size, cutoff)
    if bands == (size[0] // 2, size[1] // 2):
        return x
    return _resample(x, size, bands, 1.0, algorithm)
