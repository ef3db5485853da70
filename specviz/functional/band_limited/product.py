"""Multiply retained spectra by the filters' and sum over channels, slab by slab."""

from __future__ import annotations

import torch
from spectral_kernels import calibration
from spectral_kernels.dispatch import Along, Call, operator
from torch import Tensor

from specviz.functional import tracing
from specviz.functional.band_limited.plan import Plan, plan_of
from specviz.functional.band_limited.transforms import FilterWaves, Spectrum
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


# Three operators, closed under differentiation: each is linear in a spectrum and in the other factor.
# Samples that share the taps are more maps, others are more groups.
_SAMPLES = [Along((1, 1, None), (1, 1)), Along((2, 2, 0), (2, 2), groups=1)]


def _two_of(re: Tensor, channels: int) -> Spectrum:
    shape = re.shape[0], re.shape[1], channels
    return re.new_empty(shape), re.new_empty(shape)


def _back_to_map(call: Call, re: Tensor, im: Tensor) -> Spectrum:
    return _to_map(re, im, call.tensors[2], *call.numbers)


def _back_to_taps(call: Call, re: Tensor, im: Tensor) -> Tensor:
    return _to_taps(*call.tensors[:2], re, im, *call.numbers)


@operator(
    "specviz::band_product",
    shape=lambda re, im, weight, plan, groups: _two_of(re, weight.shape[0]),
    transposes={(0, 1): _back_to_map, (2,): _back_to_taps},
    samples=_SAMPLES,
)
def _band_product(re: Tensor, im: Tensor, weight: Tensor, plan: list[int], groups: int) -> tuple[Tensor, Tensor]:
    """Spectra of maps times those of the taps, summed over channels: twice (F, B, C) -> twice (F, B, O)."""
    with no_autocast(re.device.type):
        re, im = _multiplied((re.detach(), im.detach()), weight.detach(), plan_of(plan), groups)
    return re.contiguous(), im.contiguous()


def _map_back_to_taps(call: Call, re: Tensor, im: Tensor) -> Tensor:
    return _to_taps(re, im, *call.tensors[:2], *call.numbers)


@operator(
    "specviz::band_product_to_map",
    shape=lambda re, im, weight, plan, groups: _two_of(re, weight.shape[1] * groups),
    transposes={
        (0, 1): lambda call, re, im: _band_product(re, im, call.tensors[2], *call.numbers),
        (2,): _map_back_to_taps,
    },
    samples=_SAMPLES,
)
def _to_map(re: Tensor, im: Tensor, weight: Tensor, plan: list[int], groups: int) -> tuple[Tensor, Tensor]:
    """Its transpose in the maps: twice (F, B, O) -> twice (F, B, C)."""
    taps, waves = _taps(weight.detach(), groups).contiguous(), FilterWaves(plan_of(plan), weight.dtype, weight.device)
    with no_autocast(re.device.type):
        grad = _grouped((re.detach(), im.detach()), groups)
        parts = [_product_adjoint_x(_part(grad, s, groups), taps, waves.slab(s)) for s in _slabs(waves, taps)]
        re, im = _ungrouped(_joined(parts), groups)
    return re.contiguous(), im.contiguous()


def _taps_shape(x_re: Tensor, x_im: Tensor, g_re: Tensor, g_im: Tensor, plan: list[int], groups: int) -> Tensor:
    laid = plan_of(plan)
    return x_re.new_empty(g_re.shape[2], x_re.shape[2] // groups, laid.h.taps, laid.w.taps)


@operator(
    "specviz::band_product_to_taps",
    shape=_taps_shape,
    transposes={
        (0, 1): lambda call, grad: _to_map(*call.tensors[2:], grad, *call.numbers),
        (2, 3): lambda call, grad: _band_product(*call.tensors[:2], grad, *call.numbers),
    },
    samples=[Along((2, 2, 2, 2), (0,), groups=1)],
)
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
