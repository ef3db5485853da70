"""Multiply retained spectra by the filters' and sum over channels, slab by slab."""

from __future__ import annotations

from typing import Any

import torch
from spectral_kernels import calibration
from spectral_kernels.dispatch import Call, operator
from torch import Tensor

from specviz.functional import tracing
from specviz.functional.band_limited.plan import Plan, plan_of
from specviz.functional.band_limited.transforms import FilterWaves, Spectrum, mapped
from specviz.functional.precision import no_autocast


def _filter_spectra(waves: Tensor, weight: Tensor) -> Spectrum:
    """Real and imaginary parts of the filters' spectra: (2, f, taps), (G, taps, C, O) -> twice (f * G, C, O)."""
    G, taps, C, O = tracing.shape_of(weight)
    f = tracing.shape_of(waves)[1]
    flat = weight.permute(1, 0, 2, 3).reshape(taps, G * C * O)
    spectra = (waves.reshape(2 * f, taps) @ flat).reshape(2, f * G, C, O)
    return spectra[0], spectra[1]


def _slabs(waves: FilterWaves, weight: Tensor) -> list[slice]:
    """Ranges of frequencies whose filter spectra fit FILTER_BYTES: weight (G, taps, C, O)."""
    G, _, C, O = tracing.shape_of(weight)
    spectrum_bytes = max(2 * G * C * O * weight.element_size(), waves.bytes_of_one)
    step = max(1, calibration.FILTER_BYTES // max(1, spectrum_bytes))
    return [slice(i, min(i + step, waves.frequencies)) for i in range(0, waves.frequencies, step)]


def _complex_matmul(a: Spectrum, b: Spectrum, conjugate: int = 1) -> Spectrum:
    """(a_re + i a_im) @ (b_re + i c b_im), c = +1 or -1, in real products, which reach the full speed of sgemm."""
    (ar, ai), (br, bi) = a, b
    if tracing.shape_of(ar)[-1] == 1:  # depth-wise: nothing to sum, and a matrix product would have nothing to work on
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


def _grouped(spectrum: Spectrum, groups: int) -> Spectrum:
    """(F, B, G * channels) -> (F * G, B, channels), both parts."""
    if groups == 1:
        return spectrum
    re, im = (part.unflatten(2, (groups, -1)).transpose(1, 2).flatten(0, 1) for part in spectrum)
    return re, im


def _ungrouped(spectrum: Spectrum, groups: int) -> Spectrum:
    """The way back."""
    if groups == 1:
        return spectrum
    re, im = (part.unflatten(0, (-1, groups)).transpose(1, 2).flatten(2) for part in spectrum)
    return re, im


def _taps(weight: Tensor, groups: int) -> Tensor:
    """(O, C/G, taps_h, taps_w) as (G, taps, C/G, O/G)."""
    O, C, down, across = tracing.shape_of(weight)
    return weight.reshape(groups, O // groups, C, down * across).permute(0, 3, 2, 1)


def _multiplied(x_hat: Spectrum, weight: Tensor, plan: Plan, groups: int) -> Spectrum:
    """Slab by slab, so that the filters' spectra are never held whole."""
    taps = _taps(weight, groups).contiguous()  # once, not in every slab
    waves, grouped = FilterWaves(plan, weight.dtype, weight.device), _grouped(x_hat, groups)
    parts = [_product(_part(grouped, s, groups), taps, waves.slab(s)) for s in _slabs(waves, taps)]
    return _ungrouped(_joined(parts), groups)


@operator("specviz::band_product")
def _band_product(re: Tensor, im: Tensor, weight: Tensor, plan: list[int], groups: int) -> tuple[Tensor, Tensor]:
    """Spectra of maps times those of the taps, summed over channels: twice (F, B, C) -> twice (F, B, O)."""
    with no_autocast(re.device.type):
        re, im = _multiplied((re.detach(), im.detach()), weight.detach(), plan_of(plan), groups)
    return re.contiguous(), im.contiguous()


@operator("specviz::band_product_to_map")
def _to_map(re: Tensor, im: Tensor, weight: Tensor, plan: list[int], groups: int) -> tuple[Tensor, Tensor]:
    """Its transpose in the maps: twice (F, B, O) -> twice (F, B, C)."""
    taps, waves = _taps(weight.detach(), groups).contiguous(), FilterWaves(plan_of(plan), weight.dtype, weight.device)
    with no_autocast(re.device.type):
        grad = _grouped((re.detach(), im.detach()), groups)
        parts = [_product_adjoint_x(_part(grad, s, groups), taps, waves.slab(s)) for s in _slabs(waves, taps)]
        re, im = _ungrouped(_joined(parts), groups)
    return re.contiguous(), im.contiguous()


@operator("specviz::band_product_to_taps")
def _to_taps(x_re: Tensor, x_im: Tensor, g_re: Tensor, g_im: Tensor, plan: list[int], groups: int) -> Tensor:
    """Its transpose in the taps: twice (F, B, C), twice (F, B, O) -> (O, C/G, taps_h, taps_w)."""
    laid = plan_of(plan)
    waves = FilterWaves(laid, x_re.dtype, x_re.device)
    C, O = x_re.shape[2] // groups, g_re.shape[2] // groups
    with no_autocast(x_re.device.type):
        x_hat, grad = (
            _grouped(pair, groups) for pair in ((x_re.detach(), x_im.detach()), (g_re.detach(), g_im.detach()))
        )
        total = x_re.new_zeros(groups, laid.h.taps * laid.w.taps, C, O)
        for s in _slabs(waves, total):
            total += _product_adjoint_weight(_part(x_hat, s, groups), _part(grad, s, groups), waves.slab(s), groups)
    return total.permute(0, 3, 2, 1).reshape(groups * O, C, laid.h.taps, laid.w.taps).contiguous()


@_band_product.fake
def _(re: Tensor, im: Tensor, weight: Tensor, plan: list[int], groups: int) -> tuple[Tensor, Tensor]:
    shape = re.shape[0], re.shape[1], weight.shape[0]
    return re.new_empty(shape), re.new_empty(shape)


@_to_map.fake
def _(re: Tensor, im: Tensor, weight: Tensor, plan: list[int], groups: int) -> tuple[Tensor, Tensor]:
    shape = re.shape[0], re.shape[1], weight.shape[1] * groups
    return re.new_empty(shape), re.new_empty(shape)


@_to_taps.fake
def _(x_re: Tensor, x_im: Tensor, g_re: Tensor, g_im: Tensor, plan: list[int], groups: int) -> Tensor:
    laid = plan_of(plan)
    return x_re.new_empty(g_re.shape[2], x_re.shape[2] // groups, laid.h.taps, laid.w.taps)


# The three are closed under differentiation: each is linear in a spectrum and in the other factor.


def _derivatives(run: Any, to_spectrum: Any, to_taps: Any) -> tuple[Any, Any]:
    """Backward and tangent of a product of a spectrum and taps."""

    def backward(call: Call, re: Tensor, im: Tensor) -> tuple[Any, ...]:
        a_re, a_im, weight = call.tensors
        re, im = _both(re, im)
        to_re, to_im = to_spectrum(re, im, weight, *call.numbers) if any(call.needs[:2]) else (None, None)
        return to_re, to_im, to_taps((a_re, a_im), (re, im), *call.numbers) if call.needs[2] else None

    def tangent(call: Call, t_re: Any, t_im: Any, t_weight: Any) -> Any:
        a_re, a_im, weight = call.tensors
        parts = []
        if t_re is not None or t_im is not None:
            parts.append(run(*_both(t_re, t_im), weight, *call.numbers))
        if t_weight is not None:
            parts.append(run(a_re, a_im, t_weight, *call.numbers))
        return parts[0] if len(parts) == 1 else (parts[0][0] + parts[1][0], parts[0][1] + parts[1][1])

    return backward, tangent


def _both(re: Tensor | None, im: Tensor | None) -> Spectrum:
    """A gradient or tangent of a spectrum of which one part may be none."""
    like: Any = im if re is None else re
    return torch.zeros_like(like) if re is None else re, torch.zeros_like(like) if im is None else im


_band_product.differentiable(
    *_derivatives(_band_product, _to_map, lambda x, g, plan, groups: _to_taps(*x, *g, plan, groups))
)
_to_map.differentiable(*_derivatives(_to_map, _band_product, lambda g, x, plan, groups: _to_taps(*x, *g, plan, groups)))


def _to_taps_backward(call: Call, grad: Tensor) -> tuple[Any, ...]:
    x, g = call.tensors[:2], call.tensors[2:]
    to_x = _to_map(*g, grad, *call.numbers) if any(call.needs[:2]) else (None, None)
    to_g = _band_product(*x, grad, *call.numbers) if any(call.needs[2:]) else (None, None)
    return *to_x, *to_g


def _to_taps_tangent(call: Call, *tangents: Any) -> Any:
    x, g, t_x, t_g = call.tensors[:2], call.tensors[2:], tangents[:2], tangents[2:]
    pairs = [(t_x, g)] if any(t is not None for t in t_x) else []
    pairs += [(x, t_g)] if any(t is not None for t in t_g) else []
    parts = [_to_taps(*_both(*a), *_both(*b), *call.numbers) for a, b in pairs]
    return parts[0] if len(parts) == 1 else parts[0] + parts[1]


_to_taps.differentiable(_to_taps_backward, _to_taps_tangent)


def _map_product(run: Any) -> Any:
    """Under vmap: more maps where the taps are the same for all, more groups where they are not."""

    def rule(info: Any, in_dims: Any, re: Tensor, im: Tensor, weight: Tensor, plan: Any, groups: int) -> Any:
        V = info.batch_size
        re, im = (mapped(part, dim, V, 2) for part, dim in zip((re, im), in_dims[:2], strict=True))  # (F, B, V, C)
        if in_dims[2] is None:
            y = run(re.flatten(1, 2), im.flatten(1, 2), weight, plan, groups)
            return tuple(part.unflatten(1, (-1, V)) for part in y), (2, 2)
        weight = weight.movedim(in_dims[2], 0).flatten(0, 1)
        y = run(re.flatten(2), im.flatten(2), weight, plan, V * groups)
        return tuple(part.unflatten(2, (V, -1)) for part in y), (2, 2)

    return rule


_band_product.vmap(_map_product(_band_product))
_to_map.vmap(_map_product(_to_map))


@_to_taps.vmap
def _(info: Any, in_dims: Any, *arguments: Any) -> tuple[Tensor, int]:
    V, (*spectra, plan, groups) = info.batch_size, arguments
    spectra = [mapped(part, dim, V, 2).flatten(2) for part, dim in zip(spectra, in_dims[:4], strict=True)]
    return _to_taps(*spectra, plan, V * groups).unflatten(0, (V, -1)), 0


def multiply(x_hat: Spectrum, weight: Tensor, plan: Plan, groups: int) -> Spectrum:
    """Spectra of the outputs: twice (F, B, C), weight (O, C/G, taps_h, taps_w) -> twice (F, B, O).

    What is kept for backward is x_hat and the taps.
    """
    if tracing.leaves_a_program():
        return _multiplied(x_hat, weight, plan, groups)
    return _band_product(*x_hat, weight, plan.numbers, groups)


def multiply_to_map(grad: Spectrum, weight: Tensor, plan: Plan, groups: int) -> Spectrum:
    """The transpose of `multiply` in the maps."""
    re, im = _to_map(*grad, weight, plan.numbers, groups)
    return re, im


def multiply_to_taps(x_hat: Spectrum, grad: Spectrum, plan: Plan, groups: int) -> Tensor:
    """The transpose of `multiply` in the taps."""
    to_taps: Tensor = _to_taps(*x_hat, *grad, plan.numbers, groups)
    return to_taps
