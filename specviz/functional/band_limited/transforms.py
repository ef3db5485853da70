"""Retained spectra of maps, and maps of retained spectra: by matrix products, or by FFT and crop.

Every transform has its exact transpose beside it. `of` says which pixels: see `Axis.positions`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from spectral_kernels import dispatch
from spectral_kernels.dispatch import constant
from torch import Tensor

from specviz.functional.band_limited.plan import Axis, Of, Plan

Spectrum = tuple[Tensor, Tensor]  # real and imaginary part, each (F, B, channels)


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


def _waves(plan: Plan, of: Of, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """cos and sin at the positions: down (2, rows, positions) and across (2, k, positions).

    Towards pixels they carry the inverse's weights: a column that has a mirror counts twice, and 1 / (S_h S_w).
    """
    h, w = plan.h, plan.w
    down = _turns(h.S, _row_frequencies(h), h.positions(of))
    across = _turns(w.S, range(w.k), w.positions(of))
    if of in ("padded", "outputs"):
        across = across * _column_weights(w)[:, None] / (h.S * w.S)
    return _constant(down, dtype, device), _constant(across, dtype, device)


def filter_waves(plan: Plan, dtype: torch.dtype, device: torch.device) -> tuple[Tensor]:
    """exp(+i(a + b)) at every retained frequency and tap: (2, F, taps), real then imaginary part."""
    h, w = plan.h, plan.w
    down = _turns(h.S, _row_frequencies(h), h.positions("taps"))
    across = _turns(w.S, range(w.k), w.positions("taps"))
    waves = (across[0] + 1j * across[1])[:, None, None, :] * (down[0] + 1j * down[1])[None, :, :, None]
    waves = waves.reshape(plan.frequencies, -1)
    return (_constant(np.stack([waves.real, waves.imag]), dtype, device),)


class _Analyse(torch.autograd.Function):
    """Sum x exp(-i(a + b)) over the map's pixels: (N, H, W) -> twice (k, rows, N). Linear; keeps nothing of x.

    No transpose is made: the products read their operands transposed, which costs a BLAS nothing.
    """

    @staticmethod
    def forward(x: Tensor, down: Tensor, across: Tensor) -> Spectrum:
        N, H, W = x.shape
        k, rows = across.shape[1], down.shape[1]
        cos_across, sin_across = (across.reshape(2 * k, W) @ x.reshape(N * H, W).t()).reshape(2, k, N, H).mT
        cos, sin = (part.expand(k, rows, H) for part in down)
        real, imag = torch.bmm(cos, cos_across), torch.bmm(cos, sin_across)
        if rows > 1:  # frequency 0 alone has no sine
            real, imag = real.baddbmm_(sin, sin_across, alpha=-1), imag.baddbmm_(sin, cos_across)
        return real, imag.neg_()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Spectrum) -> None:
        ctx.save_for_backward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, real: Tensor, imag: Tensor) -> tuple[Tensor | None, ...]:
        return _Synthesise.apply(real, imag, *ctx.saved_tensors), None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], x: Tensor, down: Tensor, across: Tensor) -> tuple[Spectrum, Any]:
        maps = x.movedim(in_dims[0], 0).flatten(0, 1)  # more maps, that is all
        real, imag = _Analyse.apply(maps, down, across)
        split = (info.batch_size, -1)
        return (real.unflatten(-1, split), imag.unflatten(-1, split)), (2, 2)


class _Synthesise(torch.autograd.Function):
    """The transpose of `_Analyse`, sum Re((real + i imag) exp(i(a + b))): twice (k, rows, N) -> (N, H, W)."""

    @staticmethod
    def forward(real: Tensor, imag: Tensor, down: Tensor, across: Tensor) -> Tensor:
        k, rows, N = real.shape
        H, W = down.shape[2], across.shape[2]
        cos, sin = (part.expand(k, rows, H) for part in down)
        cos_across, sin_across = torch.bmm(real.mT, cos), torch.bmm(imag.mT, cos)
        if rows > 1:
            cos_across.baddbmm_(imag.mT, sin, alpha=-1)
            sin_across.baddbmm_(real.mT, sin)
        x = cos_across.reshape(k, N * H).t() @ across[0]
        return x.addmm_(sin_across.reshape(k, N * H).t(), across[1], alpha=-1).reshape(N, H, W)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[2:])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return *_Analyse.apply(grad, *ctx.saved_tensors), None, None

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[Any, ...], real: Tensor, imag: Tensor, down: Tensor, across: Tensor
    ) -> tuple[Tensor, int]:
        parts = []
        for part, dim in zip((real, imag), in_dims[:2], strict=True):
            batched = part[..., None].expand(*part.shape, info.batch_size) if dim is None else part.movedim(dim, -1)
            parts.append(batched.mT.flatten(-2))
        maps = _Synthesise.apply(*parts, down, across)
        return maps.unflatten(0, (info.batch_size, -1)), 0


def analyse_gemm(x: Tensor, plan: Plan, of: Of = "map") -> Spectrum:
    """Retained spectrum of pixels by matrix products: (B, C, H, W) -> twice (F, B, C)."""
    B, C, H, W = x.shape
    real, imag = _Analyse.apply(x.reshape(B * C, H, W), *constant(_waves, plan, of, x.dtype, x.device))
    return real.reshape(plan.frequencies, B, C), imag.reshape(plan.frequencies, B, C)


def synthesise_gemm(y_hat: Spectrum, plan: Plan, of: Of = "outputs") -> Tensor:
    """Pixels from their retained spectrum: twice (F, B, O) -> (B, O, positions, positions)."""
    like = y_hat[0]
    _, B, out = like.shape
    real, imag = (part.reshape(plan.w.k, plan.rows, B * out) for part in y_hat)
    y = _Synthesise.apply(real, imag, *constant(_waves, plan, of, like.dtype, like.device))
    return y.reshape(B, out, *y.shape[1:])


def _column_weights(w: Axis) -> np.ndarray:
    """How often each retained column stands in the full plane: (k,), 1 or 2."""
    return np.where(np.arange(w.k) * 2 % w.S == 0, 1.0, 2.0)


def _spectrum_by_fft(x: Tensor, plan: Plan, of: Of) -> Spectrum:
    h, w = plan.h, plan.w
    if of != "map":  # pixels that wrap around fall on each other
        for dim, axis in ((-2, h), (-1, w)):
            positions = torch.tensor(axis.positions(of), device=x.device) % axis.S
            shape = (*x.shape[:dim], axis.S, *x.shape[dim:][1:])
            x = x.new_zeros(shape).index_add(dim, positions, x)
    real, imag = dispatch.crop(torch.fft.rfft2(x, s=(h.S, w.S)), w.S, (h.k, w.k))
    if of == "map":
        return real, imag
    scale = _plane_weights(plan, x.dtype, x.device)
    return real * scale, imag * scale


def _pixels_by_fft(real: Tensor, imag: Tensor, plan: Plan, of: Of) -> Tensor:
    h, w = plan.h, plan.w
    if of == "map":  # the inverse FFT brings the weights with it
        scale = _plane_weights(plan, real.dtype, real.device).reciprocal()
        real, imag = real * scale, imag * scale
    y = torch.fft.irfft2(dispatch.pad(real, imag, (h.S, w.S), (h.k, w.k)), s=(h.S, w.S))
    for dim, axis in ((-2, h), (-1, w)):
        positions = torch.tensor(axis.positions(of), device=y.device) % axis.S
        y = y.index_select(dim, positions)
    return y


def _plane_weights(plan: Plan, dtype: torch.dtype, device: torch.device) -> Tensor:
    weights = np.repeat(_column_weights(plan.w), plan.rows)[:, None, None] / (plan.h.S * plan.w.S)
    return _constant(weights, dtype, device)


class _AnalyseByFFT(torch.autograd.Function):
    """`_Analyse` by FFT, then crop. torch's own rfft would keep its padded input for backward; this keeps nothing."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, plan: Plan, of: Of) -> Spectrum:
        return _spectrum_by_fft(x, plan, of)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Spectrum) -> None:
        ctx.plan, ctx.of = inputs[1:]

    @staticmethod
    def backward(ctx: Any, real: Tensor, imag: Tensor) -> tuple[Tensor | None, ...]:
        return _SynthesiseByFFT.apply(real, imag, ctx.plan, ctx.of), None, None


class _SynthesiseByFFT(torch.autograd.Function):
    """The transpose of `_AnalyseByFFT`: padding with zeros, then an inverse FFT."""

    generate_vmap_rule = True

    @staticmethod
    def forward(real: Tensor, imag: Tensor, plan: Plan, of: Of) -> Tensor:
        return _pixels_by_fft(real, imag, plan, of)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.plan, ctx.of = inputs[2:]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return *_AnalyseByFFT.apply(grad, ctx.plan, ctx.of), None, None


def analyse_fft(x: Tensor, plan: Plan, of: Of = "map") -> Spectrum:
    """`analyse_gemm` by FFT, then crop."""
    return _AnalyseByFFT.apply(x, plan, of)


def synthesise_fft(y_hat: Spectrum, plan: Plan, of: Of = "outputs") -> Tensor:
    """`synthesise_gemm` by padding the spectrum with zeros and an inverse FFT."""
    return _SynthesiseByFFT.apply(*y_hat, plan, of)
