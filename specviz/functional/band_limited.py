"""Convolution that leaves out high frequencies, computing only the ones it keeps (Dziedzic et al. 2019).

The definition. Pad the map (zeros), and per axis let S be the smallest 2*3*5*7-smooth integer that holds it.
Correlate circularly at S, with both spectra multiplied by the band's mask; keep the outputs that an unpadded
linear correlation would have, every stride-th. The backward pass is the exact transpose.

Four algorithms give that result. "gemm" transforms with matrices that hold the retained frequencies' cosines and
sines and nothing else, and evaluates the inverse at the outputs only; "fft" transforms whole and crops; "lowpass" uses
that leaving a frequency out of one factor leaves it out of the product: it band-limits the map and convolves that with
torch's own convolution; "direct" is torch's own convolution, the same function where nothing is left out.

Shape letters: B batch, C channels in, O channels out, G groups, H W pixels, F retained frequencies.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
from spectral_kernels import dispatch
from torch import Tensor

Algorithm = Literal["auto", "gemm", "fft", "lowpass", "direct"]
ALGORITHMS = ("auto", "gemm", "fft", "lowpass", "direct")
SLAB_BYTES = 8 << 20  # filter spectra are made and used this much at a time, never held whole


def fast_size(n: int) -> int:
    """The smallest integer >= n whose only prime factors are 2, 3, 5 and 7: FFTs of such sizes are fast."""
    while True:
        rest = n
        for prime in (2, 3, 5, 7):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return n
        n += 1


def band_for_compression(S: int, compression: float, dims: int) -> int:
    """Retained frequencies |f| < k of an axis of transform size S: the official implementation's rule.

    In 2-D each axis keeps the share sqrt(1 - compression) of its half; in 1-D the high bins that go are
    floor(half * compression) + 1. At least one frequency stays.
    """
    half = S // 2 + 1
    if compression == 0:
        return half
    if dims == 2:
        return max(1, math.floor(half * math.sqrt(1 - compression)))
    return max(1, half - math.floor(half * compression) - 1)


def published_floats(plan: Plan, compression: float) -> int:
    """Real numbers that the published implementation keeps of one map's half spectrum, to hold against `2 * F`.

    Its transform is square and padded to S = 2^ceil(log2(H + 2p + max(outputs, taps) - 1)), for the larger side; the
    band follows the same rule at that S. Source: the code published with Dziedzic et al. (2019).
    """
    sides = [
        axis.size - axis.first + max(0, axis.first + axis.reach - axis.size) + max(axis.outputs, axis.taps) - 1
        for axis in (plan.h, plan.w)
    ]
    S = 2 ** math.ceil(math.log2(max(sides)))
    k = band_for_compression(S, compression, dims=2)
    return 2 * k * (S if k == S // 2 + 1 else 2 * k - 1)


@dataclass(frozen=True)
class Axis:
    """One axis of a band-limited correlation.

    size   pixels of the map along it, before zero padding
    S      transform size
    k      frequencies |f| < k are retained
    taps, dilation    of the kernel
    first, step, outputs    output i is the correlation at pixel first + i * step, modulo S
    """

    size: int
    S: int
    k: int
    taps: int
    dilation: int
    first: int
    step: int
    outputs: int

    @property
    def half(self) -> int:
        """Frequencies of the half axis: 0 .. S//2."""
        return self.S // 2 + 1

    @property
    def reach(self) -> int:
        """Pixels, padding included, that the outputs see."""
        return (self.outputs - 1) * self.step + self.dilation * (self.taps - 1) + 1

    def positions(self, of: Of) -> range:
        """Pixels of the map, of the padded map as far as the outputs see it, of the outputs, or of the taps."""
        if of == "map":
            return range(self.size)
        if of == "padded":
            return range(self.first, self.first + self.reach)
        if of == "outputs":
            return range(self.first, self.first + self.step * self.outputs, self.step)
        return range(0, self.dilation * self.taps, self.dilation)

    @property
    def negative(self) -> int:
        """How many retained frequencies have a partner of opposite sign in another bin."""
        return min(self.k, (self.S + 1) // 2) - 1


@dataclass(frozen=True)
class Plan:
    """What a band-limited convolution will do: its axes (H, W), or (1, W) in one dimension."""

    h: Axis
    w: Axis
    dims: int
    circular: bool = False  # the map itself wraps around: S is its size

    @property
    def rows(self) -> int:
        """Retained frequencies down the map, negative ones included: u = 0 .. k-1, then the negative ones rising."""
        return self.h.k + self.h.negative

    @property
    def frequencies(self) -> int:
        """F, the entries of the half spectrum that are computed, ordered (v, u)."""
        return self.w.k * self.rows

    @property
    def share_discarded(self) -> float:
        """The true share of the full plane's coefficients that is left out."""
        kept = [axis.k + axis.negative for axis in (self.h, self.w)]
        return 1 - kept[0] * kept[1] / (self.h.S * self.w.S)


def _turns(S: int, frequencies: Sequence[int], positions: range) -> np.ndarray:
    """cos and sin of 2 pi f n / S: (2, frequencies, positions) float64.

    Angles are reduced as integers first: f * n is exact, and so is its remainder.
    """
    angle = np.outer(frequencies, np.array(positions)) % S * (2 * math.pi / S)
    return np.stack([np.cos(angle), np.sin(angle)])


def _row_frequencies(h: Axis) -> list[int]:
    return [*range(h.k), *range(-h.negative, 0)]


def _constant(array: np.ndarray, dtype: torch.dtype, device: torch.device) -> Tensor:
    # By way of NumPy and outside inference mode: what is cached here is used again under autograd and transforms.
    with torch.inference_mode(False):
        return torch.as_tensor(array, dtype=dtype, device=device)


Of = Literal["map", "padded", "outputs", "taps"]


@lru_cache(maxsize=256)
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


@lru_cache(maxsize=64)
def filter_waves(plan: Plan, dtype: torch.dtype, device: torch.device) -> Tensor:
    """exp(+i(a + b)) at every retained frequency and tap: (2, F, taps), real then imaginary part."""
    h, w = plan.h, plan.w
    down = _turns(h.S, _row_frequencies(h), h.positions("taps"))
    across = _turns(w.S, range(w.k), w.positions("taps"))
    waves = (across[0] + 1j * across[1])[:, None, None, :] * (down[0] + 1j * down[1])[None, :, :, None]
    waves = waves.reshape(plan.frequencies, -1)
    return _constant(np.stack([waves.real, waves.imag]), dtype, device)


Spectrum = tuple[Tensor, Tensor]  # real and imaginary part, each (F, B, channels)


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
    real, imag = _Analyse.apply(x.reshape(B * C, H, W), *_waves(plan, of, x.dtype, x.device))
    return real.reshape(plan.frequencies, B, C), imag.reshape(plan.frequencies, B, C)


def synthesise_gemm(y_hat: Spectrum, plan: Plan, of: Of = "outputs") -> Tensor:
    """Pixels from their retained spectrum: twice (F, B, O) -> (B, O, positions, positions)."""
    like = y_hat[0]
    _, B, out = like.shape
    real, imag = (part.reshape(plan.w.k, plan.rows, B * out) for part in y_hat)
    y = _Synthesise.apply(real, imag, *_waves(plan, of, like.dtype, like.device))
    return y.reshape(B, out, *y.shape[1:])


def _column_weights(w: Axis) -> np.ndarray:
    """How often each retained column stands in the full plane: (k,), 1 or 2."""
    return np.where(np.arange(w.k) * 2 % w.S == 0, 1.0, 2.0)


def analyse_fft(x: Tensor, plan: Plan, of: Of = "map") -> Spectrum:
    """`analyse_gemm` by FFT, then crop."""
    h, w = plan.h, plan.w
    if of != "map":  # pixels that wrap around fall on each other
        for dim, axis in ((-2, h), (-1, w)):
            positions = torch.tensor(axis.positions(of), device=x.device) % axis.S
            shape = (*x.shape[:dim], axis.S, *x.shape[dim:][1:])
            x = x.new_zeros(shape).index_add(dim, positions, x)
    real, imag = dispatch.crop(torch.fft.rfft2(x, s=(h.S, w.S)), w.S, (h.k, w.k))
    if of != "map":
        weights = np.repeat(_column_weights(w), plan.rows)[:, None, None] / (h.S * w.S)
        scale = _constant(weights, x.dtype, x.device)
        real, imag = real * scale, imag * scale
    return real, imag


def synthesise_fft(y_hat: Spectrum, plan: Plan, of: Of = "outputs") -> Tensor:
    """`synthesise_gemm` by padding the spectrum with zeros and an inverse FFT."""
    h, w = plan.h, plan.w
    y = torch.fft.irfft2(dispatch.pad(*y_hat, (h.S, w.S), (h.k, w.k)), s=(h.S, w.S))
    for dim, axis in ((-2, h), (-1, w)):
        positions = torch.tensor(axis.positions(of), device=y.device) % axis.S
        y = y.index_select(dim, positions)
    return y


def _transforms(plan: Plan) -> tuple[Any, Any]:
    """The faster pair of transforms there and back, for this plan."""
    small = max(plan.h.S, plan.w.S) <= GEMM_UP_TO[plan.dims]
    return (analyse_gemm, synthesise_gemm) if small else (analyse_fft, synthesise_fft)


def _spacing(plan: Plan) -> tuple[list[int], list[int], list[int]]:
    """Stride, padding and dilation of torch's convolution of a map that is padded already."""
    h, w = plan.h, plan.w
    return [h.step, w.step], [0, 0], [h.dilation, w.dilation]


class _ConvolveLowpassed(torch.autograd.Function):
    """torch's convolution of the map that a spectrum stands for. Keeps the spectrum and the taps, not the map."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x_re: Tensor, x_im: Tensor, weight: Tensor, plan: Plan, groups: int) -> Tensor:
        padded = _transforms(plan)[1]((x_re, x_im), plan, "padded")
        return torch.nn.functional.conv2d(padded, weight, None, *_spacing(plan), groups)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:3])
        ctx.plan, ctx.groups = inputs[3:]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x_re, x_im, weight = ctx.saved_tensors
        analyse, synthesise = _transforms(ctx.plan)
        stride, padding, dilation = _spacing(ctx.plan)
        need_x, need_w = any(ctx.needs_input_grad[:2]), ctx.needs_input_grad[2]
        # Under create_graph these are differentiated again, so the map must come from differentiable operations.
        padded = synthesise((x_re, x_im), ctx.plan, "padded")
        to_padded, to_w, _ = torch.ops.aten.convolution_backward(
            grad, padded, weight, None, stride, padding, dilation, False, [0, 0], ctx.groups, [need_x, need_w, False]
        )
        to_re, to_im = analyse(to_padded, ctx.plan, "padded") if need_x else (None, None)
        return to_re, to_im, to_w, None, None


def _filter_spectra(waves: Tensor, weight: Tensor) -> Spectrum:
    """Real and imaginary parts of the filters' spectra: (2, f, taps), (G, taps, C, O) -> twice (f * G, C, O)."""
    G, taps, C, O = weight.shape
    f = waves.shape[1]
    flat = weight.permute(1, 0, 2, 3).reshape(taps, G * C * O)
    re, im = (waves.reshape(2 * f, taps) @ flat).reshape(2, f * G, C, O)
    return re, im


def _slabs(frequencies: int, weight: Tensor) -> list[slice]:
    """Ranges of frequencies whose filter spectra fit SLAB_BYTES: weight (G, taps, C, O)."""
    spectrum_bytes = 2 * weight.numel() // weight.shape[1] * weight.element_size()
    step = max(1, SLAB_BYTES // max(1, spectrum_bytes))
    return [slice(i, min(i + step, frequencies)) for i in range(0, frequencies, step)]


def _complex_matmul(a: Spectrum, b: Spectrum, conjugate: int = 1) -> Spectrum:
    """(a_re + i a_im) @ (b_re + i c b_im), c = +1 or -1, in real products, which reach the full speed of sgemm."""
    (ar, ai), (br, bi) = a, b
    if ar.shape[-1] == 1:  # depth-wise: nothing to sum, and a matrix product would have nothing to work on
        return torch.addcmul(ar * br, ai, bi, value=-conjugate), torch.addcmul(ai * br, ar, bi, value=conjugate)
    real = torch.baddbmm(torch.bmm(ar, br), ai, bi, alpha=-conjugate)
    imag = torch.baddbmm(torch.bmm(ai, br), ar, bi, alpha=conjugate)
    return real, imag


def _product(x_hat: Spectrum, weight: Tensor, waves: Tensor) -> Spectrum:
    """Multiply-accumulate over channels: twice (f * G, B, C), (G, taps, C, O), (2, f, taps) -> twice (f * G, B, O)."""
    return _complex_matmul(x_hat, _filter_spectra(waves, weight))


def _product_adjoint_x(grad: Spectrum, weight: Tensor, waves: Tensor) -> Spectrum:
    """Gradient of `_product` with respect to x_hat: twice (f * G, B, O) -> twice (f * G, B, C)."""
    re, im = _filter_spectra(waves, weight)
    return _complex_matmul(grad, (re.mT, im.mT), conjugate=-1)


def _product_adjoint_weight(x_hat: Spectrum, grad: Spectrum, waves: Tensor, groups: int) -> Tensor:
    """Gradient of `_product` with respect to the taps: twice (f * G, B, C) and (f * G, B, O) -> (G, taps, C, O)."""
    f, taps = waves.shape[1:]
    C, O = x_hat[0].shape[-1], grad[0].shape[-1]
    # The conjugate of x_hat, transposed, times grad.
    (xr, xi), (gr, gi) = x_hat, grad
    if C == O == 1:
        re = torch.addcmul(xr * gr, xi, gi).sum(1)
        im = torch.addcmul(xr * gi, xi, gr, value=-1).sum(1)
    else:
        xr, xi = xr.mT, xi.mT
        re = torch.baddbmm(torch.bmm(xr, gr), xi, gi)
        im = torch.baddbmm(torch.bmm(xr, gi), xi, gr, alpha=-1)
    flat = waves[0].mT @ re.reshape(f, groups * C * O) + waves[1].mT @ im.reshape(f, groups * C * O)
    return flat.reshape(taps, groups, C, O).permute(1, 0, 2, 3)


def _part(spectrum: Spectrum, slab: slice, groups: int) -> Spectrum:
    """A slab of frequencies of a spectrum that is stored (F * G, B, channels)."""
    rows = slice(slab.start * groups, slab.stop * groups)
    return spectrum[0][rows], spectrum[1][rows]


def _joined(parts: list[Spectrum]) -> Spectrum:
    if len(parts) == 1:
        return parts[0]
    return torch.cat([re for re, _ in parts]), torch.cat([im for _, im in parts])


class _Product(torch.autograd.Function):
    """`_product` slab by slab, so that the filters' spectra are never held whole. Keeps x_hat and the taps."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x_re: Tensor, x_im: Tensor, weight: Tensor, waves: Tensor) -> Spectrum:
        groups = weight.shape[0]
        slabs = _slabs(waves.shape[1], weight)
        return _joined([_product(_part((x_re, x_im), s, groups), weight, waves[:, s]) for s in slabs])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Spectrum) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad_re: Tensor, grad_im: Tensor) -> tuple[Tensor | None, ...]:
        need_x, need_w = any(ctx.needs_input_grad[:2]), ctx.needs_input_grad[2]
        to_re, to_im, to_w = _ProductBackward.apply(grad_re, grad_im, *ctx.saved_tensors, need_x, need_w)
        return to_re if need_x else None, to_im if need_x else None, to_w if need_w else None, None


class _ProductBackward(torch.autograd.Function):
    """Both gradients of `_Product`, slab by slab; its own backward is in operations that autograd differentiates."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        grad_re: Tensor,
        grad_im: Tensor,
        x_re: Tensor,
        x_im: Tensor,
        weight: Tensor,
        waves: Tensor,
        need_x: bool,
        need_w: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        groups, grad, x_hat = weight.shape[0], (grad_re, grad_im), (x_re, x_im)
        slabs = _slabs(waves.shape[1], weight)
        to_w = grad_re.new_zeros(())
        to_re, to_im = grad_re.new_zeros(()), grad_re.new_zeros(())
        if need_x:
            parts = [_product_adjoint_x(_part(grad, s, groups), weight, waves[:, s]) for s in slabs]
            to_re, to_im = _joined(parts)
        if need_w:
            for s in slabs:
                part = _product_adjoint_weight(_part(x_hat, s, groups), _part(grad, s, groups), waves[:, s], groups)
                to_w = to_w + part
        return to_re, to_im, to_w

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.save_for_backward(*inputs[:6])
        ctx.needed = inputs[6:]

    @staticmethod
    def backward(ctx: Any, for_re: Tensor, for_im: Tensor, for_w: Tensor) -> tuple[Tensor | None, ...]:
        grad_re, grad_im, x_re, x_im, weight, waves = ctx.saved_tensors
        grad, x_hat, for_x = (grad_re, grad_im), (x_re, x_im), (for_re, for_im)
        groups = weight.shape[0]
        # Both outputs are bilinear: the gradient for x_hat in (grad, weight), the one for the taps in (grad, x_hat).
        to_grad: Spectrum | None = None
        to_x: Spectrum | tuple[None, None] = (None, None)
        to_w: Tensor | None = None
        if ctx.needed[0]:
            to_grad = _product(for_x, weight, waves)
            to_w = _product_adjoint_weight(for_x, grad, waves, groups)
        if ctx.needed[1]:
            through_w = _product(x_hat, for_w, waves)
            to_grad = through_w if to_grad is None else (to_grad[0] + through_w[0], to_grad[1] + through_w[1])
            to_x = _product_adjoint_x(grad, for_w, waves)
        return *(to_grad or (None, None)), *to_x, to_w, None, None, None


def _multiply(x_hat: Spectrum, weight: Tensor, plan: Plan, groups: int) -> Spectrum:
    """Spectra of the outputs: twice (F, B, C), weight (O, C/G, taps_h, taps_w) -> twice (F, B, O)."""
    F, B, channels = x_hat[0].shape
    out, C = weight.shape[0], channels // groups
    taps = weight.shape[2] * weight.shape[3]
    grouped = weight.reshape(groups, out // groups, C, taps).permute(0, 3, 2, 1).contiguous()
    waves = filter_waves(plan, weight.dtype, weight.device)
    re, im = (part.reshape(F, B, groups, C).transpose(1, 2).reshape(F * groups, B, C) for part in x_hat)
    y_re, y_im = (
        part.reshape(F, groups, B, out // groups).transpose(1, 2).reshape(F, B, out)
        for part in _Product.apply(re, im, grouped, waves)
    )
    return y_re, y_im


def energy_by_band(x: Tensor, plan: Plan) -> tuple[list[tuple[int, int]], Tensor]:
    """Every band (k_h, k_w) that an energy may choose, rising, and the padded map's energy in each: (bands,) float64.

    In two dimensions both axes keep a common fraction of their halves, which runs over j/half of either axis.
    """
    h, w = plan.h, plan.w
    spectrum = torch.fft.rfft2(x.detach(), s=(h.S, w.S), norm="ortho")
    power = (spectrum.real.square() + spectrum.imag.square()).flatten(0, -3).sum(0, dtype=torch.float64)
    power[:, 1 : (w.S + 1) // 2] *= 2
    folded = power[: h.half].clone()
    folded[1 : (h.S + 1) // 2] += power[h.half :].flip(0)
    held = folded.cumsum(0).cumsum(1).cpu()
    if plan.dims == 1:
        bands = [(1, k) for k in range(1, w.half + 1)]
    else:
        fractions = sorted({j / half for half in (h.half, w.half) for j in range(1, half + 1)})
        bands = [(_share_of(h.half, f), _share_of(w.half, f)) for f in fractions]
    k_h, k_w = torch.tensor(bands).T
    return bands, held[k_h - 1, k_w - 1]


def _share_of(half: int, fraction: float) -> int:
    return max(1, math.floor(half * fraction + 1e-9))


def band_for_energy(x: Tensor, plan: Plan, energy: float) -> tuple[int, int]:
    """The smallest band (k_h, k_w) that holds this share of the padded map's energy, summed over batch and channels."""
    if energy == 1:
        return plan.h.half, plan.w.half
    bands, held = energy_by_band(x, plan)
    wanted = energy * held[-1].item()
    return next((band for band, share in zip(bands, held.tolist(), strict=True) if share >= wanted), bands[-1])


def choose_algorithm(plan: Plan) -> Algorithm:
    """ "direct" where nothing is left out; else "gemm" for small maps and "fft" for large ones."""
    if plan.h.k == plan.h.half and plan.w.k == plan.w.half:
        return "direct"
    return "gemm" if max(plan.h.S, plan.w.S) <= GEMM_UP_TO[plan.dims] else "fft"


# Transform size up to which matrix products are taken to beat the FFT; provisional, not yet from records.
GEMM_UP_TO = {1: 700, 2: 128}


def _numbers(value: int | Sequence[int], dims: int, name: str, least: int) -> tuple[int, ...]:
    values = (value,) * dims if isinstance(value, int) else tuple(value)
    if len(values) != dims or any(not isinstance(v, int) or v < least for v in values):
        raise ValueError(f"{name}={value!r} must be a whole number >= {least}, or {dims} of them")
    return values


def check_share(compression: float, energy: float | None) -> None:
    """Raise ValueError unless one of them says what to keep, within its range."""
    if not 0 <= compression < 1:
        raise ValueError(f"compression={compression} must lie in [0, 1): it is the share of coefficients left out")
    if energy is not None:
        if compression:
            raise ValueError(f"compression={compression} and energy={energy} both choose the band; give one of them")
        if not 0 < energy <= 1:
            raise ValueError(f"energy={energy} must lie in (0, 1]: it is the share of energy kept")


def _check_tensors(x: Tensor, weight: Tensor, bias: Tensor | None, groups: int, dims: int) -> None:
    name = f"band_limited_conv{dims}d"
    if x.ndim not in (dims + 1, dims + 2) or weight.ndim != dims + 2:
        raise ValueError(
            f"{name} takes x of {dims + 2} dimensions (or {dims + 1} without a batch) and weight of {dims + 2}, "
            f"got {tuple(x.shape)} and {tuple(weight.shape)}"
        )
    for what, tensor in (("x", x), ("weight", weight)):
        if not tensor.is_floating_point():
            raise TypeError(f"{name} takes real floating-point tensors; {what} is {tensor.dtype}: use .float()")
    if not isinstance(groups, int) or groups < 1 or weight.shape[0] % groups:
        raise ValueError(f"groups={groups} must divide the {weight.shape[0]} output channels")
    if x.shape[-dims - 1] != weight.shape[1] * groups:
        raise ValueError(
            f"x has {x.shape[-dims - 1]} channels, but weight {tuple(weight.shape)} with groups={groups} "
            f"takes {weight.shape[1] * groups}"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(
            f"bias has shape {tuple(bias.shape)}; it must have one number for each output, {weight.shape[0]}"
        )
    if 0 in x.shape[-dims:] or 0 in weight.shape:
        raise ValueError(f"nothing to convolve: x {tuple(x.shape)}, weight {tuple(weight.shape)}")


def same_padding(taps: int, dilation: int) -> tuple[int, int]:
    """Zeros before and after an axis that keep its size at stride 1; the odd one goes after, as in torch."""
    total = dilation * (taps - 1)
    return total // 2, total - total // 2


def convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: int | Sequence[int],
    padding: str | int | Sequence[int],
    dilation: int | Sequence[int],
    groups: int,
    *,
    compression: float,
    energy: float | None,
    algorithm: Algorithm,
    dims: int,
    circular: bool = False,
) -> tuple[Tensor, Plan, Algorithm]:
    """What the layers call: the outputs, the plan that was followed and the algorithm that ran."""
    check_share(compression, energy)
    _check_tensors(x, weight, bias, groups, dims)
    if algorithm not in ALGORITHMS:
        raise ValueError(f"algorithm={algorithm!r} is unknown; pick one of {', '.join(ALGORITHMS)}")
    stride_, dilation_ = _numbers(stride, dims, "stride", 1), _numbers(dilation, dims, "dilation", 1)
    taps = tuple(weight.shape[2:])
    if isinstance(padding, str):
        if padding not in ("same", "valid"):
            raise ValueError(f'padding={padding!r} is unknown; pick "same", "valid" or numbers')
        if padding == "same" and any(s != 1 for s in stride_):
            raise ValueError(f'padding="same" keeps the size, so it needs stride 1, not {stride}')
        pads = [same_padding(t, d) if padding == "same" else (0, 0) for t, d in zip(taps, dilation_, strict=True)]
    else:
        pads = [(p, p) for p in _numbers(padding, dims, "padding", 0)]
    batched = x if x.ndim == dims + 2 else x[None]
    axes = [
        _axis(*numbers, circular) for numbers in zip(batched.shape[2:], taps, pads, stride_, dilation_, strict=True)
    ]
    if dims == 1:
        batched, weight = batched.unsqueeze(-2), weight.unsqueeze(-2)
        axes = [_axis(1, 1, (0, 0), 1, 1, True), *axes]
    plan = Plan(axes[0], axes[1], dims, circular)
    working = torch.promote_types(torch.promote_types(batched.dtype, weight.dtype), torch.float32)
    result = _result_dtype(x, weight)
    with torch.autocast(x.device.type, enabled=False):
        y, plan, ran = _run(
            batched.to(working),
            weight.to(working),
            plan,
            compression,
            energy,
            algorithm,
            groups,
        )
        if bias is not None:
            y = y + bias.to(working)[:, None, None]
    y = y.squeeze(-2) if dims == 1 else y
    return (y if x.ndim == dims + 2 else y[0]).to(result), plan, ran


def _result_dtype(x: Tensor, weight: Tensor) -> torch.dtype:
    """What torch's own convolution would return, also under autocast."""
    if torch.is_autocast_enabled(x.device.type) and x.dtype != torch.float64:
        return torch.get_autocast_dtype(x.device.type)
    if x.dtype != weight.dtype:
        raise TypeError(f"x is {x.dtype} but weight is {weight.dtype}; convert one of them")
    return x.dtype


def _axis(size: int, taps: int, pad: tuple[int, int], stride: int, dilation: int, circular: bool) -> Axis:
    padded, reach = size + sum(pad), dilation * (taps - 1)
    if reach + 1 > padded and not circular:
        raise ValueError(
            f"the kernel spans {reach + 1} pixels ({taps} taps, dilation {dilation}), "
            f"more than the padded map's {padded}; use padding >= {-(-(reach + 1 - size) // 2)}"
        )
    if reach + 1 > padded:
        raise ValueError(f"a kernel spanning {reach + 1} pixels has no output on a circular map of {padded}")
    S = size if circular else fast_size(padded)
    return Axis(size, S, S // 2 + 1, taps, dilation, -pad[0], stride, (padded - reach - 1) // stride + 1)


def _run(
    x: Tensor, weight: Tensor, plan: Plan, compression: float, energy: float | None, algorithm: Algorithm, groups: int
) -> tuple[Tensor, Plan, Algorithm]:
    h, w = plan.h, plan.w
    if energy is not None:
        bands = band_for_energy(x, plan, energy)
    else:
        across_only = 0.0 if plan.dims == 1 else compression  # the single row of a series is always whole
        bands = band_for_compression(h.S, across_only, 2), band_for_compression(w.S, compression, plan.dims)
    plan = replace(plan, h=replace(h, k=bands[0]), w=replace(w, k=bands[1]))
    complete = bands == (h.half, w.half)
    if algorithm == "direct" and not complete:
        raise ValueError('algorithm="direct" is torch\'s own convolution: it cannot leave out frequencies')
    chosen = choose_algorithm(plan) if algorithm == "auto" else algorithm
    if chosen == "direct":
        return _direct(x, weight, plan, groups), plan, chosen
    if x.shape[0] == 0:
        empty = x.new_zeros(0, weight.shape[0], plan.h.outputs, plan.w.outputs)
        return empty + 0 * (x.sum() + weight.sum()), plan, chosen
    if chosen == "lowpass":
        x_hat = _transforms(plan)[0](x, plan)
        return _ConvolveLowpassed.apply(*x_hat, weight, plan, groups), plan, chosen
    analyse, synthesise = (analyse_gemm, synthesise_gemm) if chosen == "gemm" else (analyse_fft, synthesise_fft)
    return synthesise(_multiply(analyse(x, plan), weight, plan, groups), plan), plan, chosen


def _direct(x: Tensor, weight: Tensor, plan: Plan, groups: int) -> Tensor:
    """torch's own convolution on the map as the plan pads it."""
    h, w = plan.h, plan.w
    if plan.circular:
        for dim, axis in ((-2, h), (-1, w)):
            x = x.index_select(dim, torch.tensor(axis.positions("padded"), device=x.device) % axis.S)
    else:
        pads = [(-axis.first, axis.first + axis.reach - axis.size) for axis in (h, w)]
        x = torch.nn.functional.pad(x, (*pads[1], *pads[0]))
    return torch.nn.functional.conv2d(x, weight, None, *_spacing(plan), groups)


def band_limited_conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: str | int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    *,
    compression: float = 0.0,
    energy: float | None = None,
    algorithm: Algorithm = "auto",
) -> Tensor:
    """Convolve maps with their high frequencies and the filters' left out: torch's `conv2d` with a band.

    x            (B, C, H, W) or (C, H, W) real; weight (O, C/groups, k_h, k_w) -> (B, O, H', W') as conv2d
    compression  share of the coefficients left out, in [0, 1); at 0 the result is the ordinary convolution
    energy       instead: keep the smallest band that holds this share of the map's energy, in (0, 1]
    algorithm    "auto", "gemm", "fft", "lowpass" or "direct" (compression 0 only); the same result beyond rounding

    What autograd keeps is the map's retained coefficients and the taps. Dziedzic et al. (2019); where their code pads
    to a power of two we take the next fast size, so the plane is smaller and the band has the same rule.
    """
    y, _, _ = convolve(
        x, weight, bias, stride, padding, dilation, groups,
        compression=compression, energy=energy, algorithm=algorithm, dims=2,
    )  # fmt: skip
    return y


def band_limited_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: str | int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    *,
    compression: float = 0.0,
    energy: float | None = None,
    algorithm: Algorithm = "auto",
) -> Tensor:
    """`band_limited_conv2d` along one axis: x (B, C, L) or (C, L), weight (O, C/groups, k) -> (B, O, L')."""
    y, _, _ = convolve(
        x, weight, bias, stride, padding, dilation, groups,
        compression=compression, energy=energy, algorithm=algorithm, dims=1,
    )  # fmt: skip
    return y
