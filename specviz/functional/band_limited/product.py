"""Multiply retained spectra by the filters' and sum over channels, slab by slab."""

from __future__ import annotations

from typing import Any

import torch
from spectral_kernels.dispatch import constant
from torch import Tensor

from specviz.functional.band_limited.plan import Plan
from specviz.functional.band_limited.transforms import Spectrum, filter_waves

SLAB_BYTES = 8 << 20  # filter spectra are made and used this much at a time, never held whole


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
        groups, weight = weight.shape[0], weight.contiguous()  # once, not in every slab
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
        groups, weight = weight.shape[0], weight.contiguous()
        grad, x_hat = (grad_re, grad_im), (x_re, x_im)
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


def multiply(x_hat: Spectrum, weight: Tensor, plan: Plan, groups: int) -> Spectrum:
    """Spectra of the outputs: twice (F, B, C), weight (O, C/G, taps_h, taps_w) -> twice (F, B, O)."""
    F, B, channels = x_hat[0].shape
    out, C = weight.shape[0], channels // groups
    taps = weight.shape[2] * weight.shape[3]
    # A view: a copy of the taps would be kept for backward beside the parameter.
    grouped = weight.reshape(groups, out // groups, C, taps).permute(0, 3, 2, 1)
    (waves,) = constant(filter_waves, plan, weight.dtype, weight.device)
    re, im = (part.reshape(F, B, groups, C).transpose(1, 2).reshape(F * groups, B, C) for part in x_hat)
    y_re, y_im = (
        part.reshape(F, groups, B, out // groups).transpose(1, 2).reshape(F, B, out)
        for part in _Product.apply(re, im, grouped, waves)
    )
    return y_re, y_im
