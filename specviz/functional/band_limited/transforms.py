"""Retained spectra of maps, and maps of retained spectra: by matrix products, or by FFT and crop.

Every transform has its exact transpose beside it. `grid` says which pixels: see `Axis.positions`. Each is a function
of torch's own operations, for programs that run elsewhere, and an operator, which keeps nothing for its backward.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from spectral_kernels import calibration, dispatch
from spectral_kernels.dispatch import Along, Call, constant, operator
from spectral_kernels.symmetry import is_own_mirror
from torch import Tensor

from specviz.functional import tracing
from specviz.functional.band_limited.plan import Axis, Of, Plan, plan_of
from specviz.functional.precision import no_autocast

Spectrum = tuple[Tensor, Tensor]  # real and imaginary part, each (F, B, channels)
By = Literal["gemm", "fft"]


def _turns(S: int, frequencies: Sequence[int], positions: range) -> np.ndarray:
    """cos and sin of 2 pi f n / S: (2, frequencies, positions) float64.

    Angles are reduced as integers first: f * n is exact, and so is its remainder.
    """
    angle = np.outer(frequencies, np.array(positions)) % S * (2 * math.pi / S)
    return np.stack([np.cos(angle), np.sin(angle)])


def _row_frequencies(h: Axis) -> list[int]:
    return [*range(h.k), *range(-h.negative, 0)]


def _constant(array: np.ndarray, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.as_tensor(array, dtype=dtype, device=device)


def _waves(numbers: tuple[int, ...], grid: Of, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """cos and sin at the positions: down (2, rows, positions) and across (2, k, positions).

    Towards pixels they carry the inverse's weights: a column whose partners lie in another counts twice; 1 / (S_h S_w).
    """
    plan = plan_of(numbers)
    h, w = plan.h, plan.w
    down = _turns(h.S, _row_frequencies(h), h.positions(grid))
    across = _turns(w.S, range(w.k), w.positions(grid))
    if grid in ("padded", "outputs"):
        across = across * column_weights(w)[:, None] / (h.S * w.S)
    return _constant(down, dtype, device), _constant(across, dtype, device)


def filter_waves(numbers: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> tuple[Tensor]:
    """exp(+i(a + b)) at every retained frequency and tap: (2, F, taps), real then imaginary part."""
    plan = plan_of(numbers)
    h, w = plan.h, plan.w
    down = _turns(h.S, _row_frequencies(h), h.positions("taps"))
    across = _turns(w.S, range(w.k), w.positions("taps"))
    waves = (across[0] + 1j * across[1])[:, None, None, :] * (down[0] + 1j * down[1])[None, :, :, None]
    waves = waves.reshape(plan.frequencies, -1)
    return (_constant(np.stack([waves.real, waves.imag]), dtype, device),)


class FilterWaves:
    """exp(+i(a + b)) at every retained frequency and tap, a slab at a time: real, then imaginary part, (2, f, taps).

    Held whole where they are small, for the next call too. Those of 129 x 129 taps on 256 x 256 pixels would take
    10 GiB: these are made of the two axes' own, in each slab anew.
    """

    def __init__(self, plan: Plan, dtype: torch.dtype, device: torch.device) -> None:
        self._rows, self.frequencies = plan.rows, plan.frequencies
        self._whole: Tensor | None = None
        self.bytes_of_one = 2 * plan.h.taps * plan.w.taps * dtype.itemsize  # frequency's
        if tracing.leaves_a_program() or self.frequencies * self.bytes_of_one <= calibration.WHOLE_WAVES_BYTES:
            (self._whole,) = constant(filter_waves, plan.numbers, dtype, device)
            self.bytes_of_one = 0  # nothing that a slab adds
        else:
            self._down, self._across = constant(_waves, plan.numbers, "taps", dtype, device)

    def slab(self, slab: slice) -> Tensor:
        if self._whole is not None:
            return self._whole[:, slab]
        at = torch.arange(slab.start, slab.stop, device=self._down.device)
        cos_down, sin_down = self._down[:, at % self._rows, :, None]
        cos_across, sin_across = self._across[:, at // self._rows, None, :]
        real = torch.addcmul(cos_down * cos_across, sin_down, sin_across, value=-1)
        return torch.stack([real, torch.addcmul(sin_down * cos_across, cos_down, sin_across)]).flatten(2)


def column_weights(w: Axis) -> np.ndarray:
    """How often each retained column stands in the full plane: (k,), 1 or 2."""
    counts: np.ndarray = 2.0 - is_own_mirror(np.arange(w.k), w.S)
    return counts


def _add_product(total: Tensor, a: Tensor, b: Tensor, sign: int) -> Tensor:
    """total + sign * a @ b, of matrices or of batches; in the memory of `total`, but for programs that others read."""
    if tracing.leaves_a_program():
        return torch.baddbmm(total, a, b, alpha=sign) if a.ndim == 3 else torch.addmm(total, a, b, alpha=sign)
    return total.baddbmm_(a, b, alpha=sign) if a.ndim == 3 else total.addmm_(a, b, alpha=sign)


def _analyse_gemm(x: Tensor, plan: Plan, grid: Of) -> Spectrum:
    """Sum x exp(-i(a + b)) over the pixels: (B, C, H, W) -> twice (F, B, C).

    No transpose is made: the products read their operands transposed, which costs a BLAS nothing.
    """
    down, across = constant(_waves, plan.numbers, grid, x.dtype, x.device)
    C, k, rows, H, W = x.shape[1], plan.w.k, plan.rows, down.shape[2], across.shape[2]
    turned = (across.reshape(2 * k, W) @ x.reshape(-1, W).t()).reshape(2, k, -1, H).transpose(2, 3)
    cos_across, sin_across = turned[0], turned[1]
    cos, sin = down[0].expand(k, rows, H), down[1].expand(k, rows, H)
    real, minus = torch.bmm(cos, cos_across), torch.bmm(cos, sin_across)
    if rows > 1:  # frequency 0 alone has no sine
        real, minus = _add_product(real, sin, sin_across, -1), _add_product(minus, sin, cos_across, 1)
    imag = minus.neg() if tracing.leaves_a_program() else minus.neg_()
    return real.reshape(plan.frequencies, -1, C), imag.reshape(plan.frequencies, -1, C)


def _synthesise_gemm(real: Tensor, imag: Tensor, plan: Plan, grid: Of) -> Tensor:
    """The transpose: the sum of Re((real + i imag) exp(i(a + b))), twice (F, B, C) -> (B, C, H, W)."""
    down, across = constant(_waves, plan.numbers, grid, real.dtype, real.device)
    C, k, rows, H = real.shape[2], plan.w.k, plan.rows, down.shape[2]
    real, imag = (part.reshape(k, rows, -1).transpose(1, 2) for part in (real, imag))
    cos, sin = down[0].expand(k, rows, H), down[1].expand(k, rows, H)
    cos_across, sin_across = torch.bmm(real, cos), torch.bmm(imag, cos)
    if rows > 1:
        cos_across, sin_across = _add_product(cos_across, imag, sin, -1), _add_product(sin_across, real, sin, 1)
    x = cos_across.reshape(k, -1).t() @ across[0]
    return _add_product(x, sin_across.reshape(k, -1).t(), across[1], -1).reshape(-1, C, H, across.shape[2])


def _analyse_fft(x: Tensor, plan: Plan, grid: Of) -> Spectrum:
    h, w = plan.h, plan.w
    if grid != "map":  # pixels that wrap around fall on each other
        for dim, axis in ((-2, h), (-1, w)):
            positions = torch.tensor(axis.positions(grid), device=x.device) % axis.S
            shape = (*x.shape[:dim], axis.S, *x.shape[dim:][1:])
            x = x.new_zeros(shape).index_add(dim, positions, x)
    real, imag = dispatch.crop(torch.fft.rfft2(x, s=(h.S, w.S)), w.S, (h.k, w.k))
    if grid == "map":
        return real, imag
    scale = _plane_weights(plan, x.dtype, x.device)
    return real * scale, imag * scale


def _synthesise_fft(real: Tensor, imag: Tensor, plan: Plan, grid: Of) -> Tensor:
    h, w = plan.h, plan.w
    if grid == "map":  # the inverse FFT brings the weights with it
        scale = _plane_weights(plan, real.dtype, real.device).reciprocal()
        real, imag = real * scale, imag * scale
    y: Tensor = torch.fft.irfft2(dispatch.pad(real, imag, (h.S, w.S), (h.k, w.k)), s=(h.S, w.S))
    for dim, axis in ((-2, h), (-1, w)):
        positions = torch.tensor(axis.positions(grid), device=y.device) % axis.S
        y = y.index_select(dim, positions)
    return y


def _plane_weights(plan: Plan, dtype: torch.dtype, device: torch.device) -> Tensor:
    weights = np.repeat(column_weights(plan.w), plan.rows)[:, None, None] / (plan.h.S * plan.w.S)
    return _constant(weights, dtype, device)


def _spectrum_shape(x: Tensor, plan: list[int], grid: str, by: str) -> Spectrum:
    shape = plan_of(plan).frequencies, x.shape[0], x.shape[1]
    return x.new_empty(shape), x.new_empty(shape)


def _to_pixels(call: Call, real: Tensor, imag: Tensor) -> Tensor:
    return _synthesise(real, imag, *call.numbers)


@operator(
    "specviz::band_analyse",
    shape=_spectrum_shape,
    transposes={(0,): _to_pixels},
    samples=[Along((0,), (1, 1))],  # more maps, that is all
)
def _analyse(x: Tensor, plan: list[int], of: str, by: str) -> tuple[Tensor, Tensor]:
    """torch's own rfft would keep its padded input for backward; this keeps nothing."""
    run: Callable[..., Any] = _analyse_gemm if by == "gemm" else _analyse_fft
    with no_autocast(x.device.type):
        real, imag = run(x.detach(), plan_of(plan), of)
    return real.contiguous(), imag.contiguous()


def _maps_shape(real: Tensor, imag: Tensor, plan: list[int], grid: Any, by: str) -> Tensor:
    h, w = plan_of(plan).h, plan_of(plan).w
    return real.new_empty(*real.shape[1:], len(h.positions(grid)), len(w.positions(grid)))


@operator(
    "specviz::band_synthesise",
    shape=_maps_shape,
    transposes={(0, 1): lambda call, grad: _analyse(grad, *call.numbers)},
    samples=[Along((1, 1), (0,))],
)
def _synthesise(real: Tensor, imag: Tensor, plan: list[int], of: str, by: str) -> Tensor:
    run: Callable[..., Tensor] = _synthesise_gemm if by == "gemm" else _synthesise_fft
    with no_autocast(real.device.type):
        return run(real.detach(), imag.detach(), plan_of(plan), of).contiguous()


def analyse(x: Tensor, plan: Plan, grid: Of = "map", *, by: By) -> Spectrum:
    """Retained spectrum of pixels: (B, C, H, W) -> twice (F, B, C)."""
    if by == "gemm" and tracing.leaves_a_program():
        return _analyse_gemm(x, plan, grid)
    return _analyse(x, plan.numbers, grid, by)


def synthesise(y_hat: Spectrum, plan: Plan, grid: Of = "outputs", *, by: By) -> Tensor:
    """Pixels from their retained spectrum: twice (F, B, O) -> (B, O, positions, positions)."""
    if by == "gemm" and tracing.leaves_a_program():
        return _synthesise_gemm(*y_hat, plan, grid)
    return _synthesise(*y_hat, plan.numbers, grid, by)
