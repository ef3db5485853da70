"""Multiply spectra by filters that are functions of frequency, on torch tensors.

The kernels multiply, and give the gradient with respect to the functions' numbers. Forward mode and second derivatives
of Gaussians need more: they build banks of O * C filters in plain torch.
"""

import math
from typing import Any

import torch
from torch import Tensor

from spectral_kernels import calibration
from spectral_kernels import filters as filters_kernel
from spectral_kernels.dispatch._constants import constant
from spectral_kernels.dispatch._devices import Form, Forms, need_complex, operator_form, run
from spectral_kernels.dispatch._operators import Along, Call, operator
from spectral_kernels.symmetry import is_own_mirror


def filters(
    X: Tensor, weight: Tensor, width: int, polar: bool = False, conjugate: bool = False, form: Form = "auto"
) -> Tensor:
    """Multiply by filters and sum over channels: (B, C, H, W//2+1) complex, (O, C, 2, P) real -> (B, O, H, W//2+1).

    weight     P = 3 numbers of a linear function or 6 of a Gaussian, for the real and the imaginary part, as
               `spectral_kernels.filters` lays them out
    polar      coordinates are (angle, radius) instead of (u, v)
    conjugate  multiply by the filters' conjugates

    The filters are never held where only values and gradients are needed. Differentiable, in reverse and forward mode.
    """
    need_complex("filters", X=X)
    real = torch.float32 if X.dtype == torch.complex64 else torch.float64
    if weight.dtype != real:
        raise TypeError(f"spectra of {X.dtype} need a weight of {real}, not {weight.dtype}")
    if X.ndim != 4 or X.shape[2] < 1 or X.shape[3] != width // 2 + 1:
        raise ValueError(
            f"X {tuple(X.shape)} are no half spectra (B, C, H, W//2+1) of maps {width} pixels wide: "
            f"they would end in {width // 2 + 1}"
        )
    _check_functions(weight, X.shape[1])
    return _filters(X, weight, width, polar, conjugate, operator_form(form, X.device))


def filter_maps(x: Tensor, weight: Tensor, polar: bool = False, form: Form = "auto") -> Tensor:
    """`filters` on the spectra of maps: (B, C, H, W) real, (O, C, 2, P) real -> (B, O, H, W). Keeps x, no spectra."""
    if x.dtype not in (torch.float32, torch.float64) or weight.dtype != x.dtype:
        raise TypeError(f"filter_maps takes maps and weight both float32 or float64, not {x.dtype} and {weight.dtype}")
    if x.ndim != 4 or 0 in x.shape[-2:]:
        raise ValueError(f"x {tuple(x.shape)} must be (B, C, H, W) of at least one pixel")
    _check_functions(weight, x.shape[1])
    return _filter_maps(x, weight, polar, False, operator_form(form, x.device))


def filters_bank(weight: Tensor, size: tuple[int, int], polar: bool = False) -> Tensor:
    """The filters that `filters` multiplies by, held: (O, C, 2, P) -> (O, C, 2, H, W//2+1), real and imaginary parts.

    In torch's own operations on real numbers.
    """
    _check_functions(weight, weight.shape[1] if weight.ndim > 1 else 0)
    H, W = size
    p, q = constant(_planes, H, W, polar, weight.dtype, weight.device)
    if weight.shape[-1] == filters_kernel.LINEAR:
        k, a, b = weight[..., None, None].unbind(3)
        return _hermitian(k + a * p + b * q, W)
    gain, *_, bell = _gaussian(weight, p, q)
    return _hermitian(gain * bell, W)


def _check_functions(weight: Tensor, channels: int) -> None:
    sizes = (filters_kernel.LINEAR, filters_kernel.GAUSSIAN)
    if weight.ndim != 4 or weight.shape[2] != 2 or weight.shape[3] not in sizes or weight.shape[1] != channels:
        raise ValueError(
            f"weight {tuple(weight.shape)} must be (O, {channels}, 2, 3) for linear functions "
            f"or (O, {channels}, 2, 6) for Gaussians: real, then imaginary part"
        )


# --- In plain torch


def _planes(H: int, W: int, polar: bool, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """The coordinates of every stored frequency, as `spectral_kernels.filters.coordinates`."""
    u = ((torch.arange(H, dtype=torch.float64, device=device) + H // 2) % H - H // 2) / H
    v = torch.arange(W // 2 + 1, dtype=torch.float64, device=device) / W
    p, q = torch.broadcast_tensors(u[:, None], v)
    if polar:
        p, q = torch.atan2(p, q) / math.pi, torch.hypot(p, q)
    return p.to(dtype).contiguous(), q.to(dtype).contiguous()


def _mirrors(H: int, W: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """The row of each row's mirror (H,), the columns that mirror themselves (V,), the conjugate's signs (2, 1, 1)."""
    own = is_own_mirror(torch.arange(W // 2 + 1, device=device), W)
    return -torch.arange(H, device=device) % H, own, torch.tensor([1, -1], dtype=dtype, device=device)[:, None, None]


def _hermitian(parts: Tensor, W: int) -> Tensor:
    """Real and imaginary parts (O, C, 2, H, V), with the Hermitian part on columns that mirror themselves."""
    mirror, own, signs = constant(_mirrors, parts.shape[-2], W, parts.dtype, parts.device)
    return torch.where(own, (parts + parts.index_select(-2, mirror) * signs) / 2, parts)


def _gaussian(weight: Tensor, p: Tensor, q: Tensor) -> tuple[Tensor, ...]:
    """gain, a, z, A, T, D and the bell exp(-(A a^2 + D z^2) / 2), with a = p - m and z = (q - n) + T a."""
    gain, m, n, A, T, D = weight[..., None, None].unbind(3)
    a = p - m
    z = (q - n) + T * a
    return gain, a, z, A, T, D, torch.exp(-0.5 * (A * a * a + D * z * z))


def _moved(weight: Tensor, along: Tensor, p: Tensor, q: Tensor) -> tuple[Tensor, ...]:
    """How a, z and the exponent of a Gaussian move where its numbers do: by _gaussian(weight)'s derivative `along`."""
    _, a, z, A, T, D, _ = _gaussian(weight, p, q)
    _, m_, n_, A_, T_, D_ = along[..., None, None].unbind(3)
    a_, z_ = -m_, T_ * a - T * m_ - n_
    return a_, z_, -(A * a * a_ + D * z * z_) - 0.5 * (A_ * a * a + D_ * z * z)


def _channel_product(X: Tensor, K: Tensor) -> Tensor:
    """(B, C, H, V), (O, C, H, V) -> (B, O, H, V). As einsum, which has no rule where tangents are mapped."""
    return (X.permute(2, 3, 0, 1) @ K.permute(2, 3, 1, 0)).permute(2, 3, 0, 1)


def _along(X: Tensor, weight: Tensor, along: Tensor, width: int, polar: bool, conjugate: bool, form: str) -> Tensor:
    """How filters(X, weight) moves where the functions' numbers move along: (B, C, H, V), two (O, C, 2, P)."""
    if weight.shape[-1] == filters_kernel.LINEAR:
        return _filters(X, along, width, polar, conjugate, form)
    p, q = constant(_planes, X.shape[-2], width, polar, weight.dtype, weight.device)
    gain, *_, bell = _gaussian(weight, p, q)
    *_, exponent_ = _moved(weight, along, p, q)
    re, im = _hermitian(bell * (along[..., 0, None, None] + gain * exponent_), width).unbind(2)
    return _channel_product(X, torch.complex(re, -im if conjugate else im))


def _gradient_along(X: Tensor, G: Tensor, weight: Tensor, along: Tensor, width: int, polar: bool) -> Tensor | None:
    """How filters_gradient(X, G, weight) moves where the numbers move along; linear functions' does not.

    The slopes of a Gaussian are bell * (1, gain * those of its exponent); the product rule, number by number.
    """
    if weight.shape[-1] == filters_kernel.LINEAR:
        return None
    E = _channel_product(G.transpose(0, 1), torch.complex(X.real, -X.imag).transpose(0, 1))
    p, q = constant(_planes, X.shape[-2], width, polar, weight.dtype, weight.device)
    gain, a, z, A, T, D, bell = _gaussian(weight, p, q)
    gain_, _, _, A_, T_, D_ = along[..., None, None].unbind(3)
    a_, z_, exponent_ = _moved(weight, along, p, q)
    slopes = (A * a + D * T * z, D * z, -0.5 * a * a, -D * z * a, -0.5 * z * z)  # of the exponent in m, n, A, T, D
    slopes_ = (
        A_ * a + A * a_ + D_ * T * z + D * T_ * z + D * T * z_,
        D_ * z + D * z_,
        -a * a_,
        -(D_ * z * a + D * z_ * a + D * z * a_),
        -z * z_,
    )
    e = bell * _hermitian(torch.stack([E.real, E.imag], 2), width)
    moved = [(e * exponent_).sum((-2, -1))]
    for slope, slope_ in zip(slopes, slopes_, strict=True):
        moved.append((e * ((gain_ + gain * exponent_) * slope + gain * slope_)).sum((-2, -1)))
    return torch.stack(moved, -1)


# --- As operators


def _multiply(X: Tensor, weight: Tensor, width: int, polar: bool, conjugate: bool, form: str) -> Tensor:
    _check_functions(weight, X.shape[1])  # once more, for traced programs begin here
    forms = Forms(filters_kernel.reference, filters_kernel.cpu, filters_kernel.cuda)
    work = X.numel() * weight.shape[0] // calibration.PRODUCTS_AN_ENTRY
    return run(forms, form, work, (X, weight), width, _coordinates(X, weight, width, polar, form), conjugate)


def _coordinates(X: Tensor, weight: Tensor, width: int, polar: bool, form: str) -> Any:
    """What a form is told of them: whether they are polar; a GPU is given them."""
    return constant(_planes, X.shape[2], width, polar, weight.dtype, X.device) if form == "cuda" else polar


def _swapped(weight: Tensor) -> Tensor:
    """For the way back, where outputs and channels change roles."""
    return weight.transpose(0, 1)


def _to_spectra(call: Call, grad: Tensor) -> Tensor:
    width, polar, conjugate, form = call.numbers
    return _filters(grad, _swapped(call.tensors[1]), width, polar, not conjugate, form)


def _to_functions(call: Call, grad: Tensor) -> Tensor:
    (X, weight), (width, polar, conjugate, form) = call.tensors, call.numbers
    if conjugate:  # map and gradient change roles, so the channels do too
        return _swapped(filters_gradient(grad, X, _swapped(weight), width, polar, form))
    return filters_gradient(X, grad, weight, width, polar, form)


def _filters_along(call: Call, moved: Tensor) -> Tensor:
    (X, weight), (width, polar, conjugate, form) = call.tensors, call.numbers
    return _along(X, weight, moved, width, polar, conjugate, form)


# More maps where all samples share the filters, more outputs where they share the maps.
_SAMPLES = [Along((0, None), (0,)), Along((None, 0), (1,))]


@operator(
    "spectral_kernels::filters",
    shape=lambda X, weight, *_: X.new_empty(X.shape[0], weight.shape[0], *X.shape[2:]),
    transposes={(0,): _to_spectra, (1,): _to_functions},
    tangents={(1,): _filters_along},
    samples=_SAMPLES,
)
def _filters(X: Tensor, weight: Tensor, width: int, polar: bool, conjugate: bool, form: str) -> Tensor:
    return _multiply(X, weight, width, polar, conjugate, form)


def _to_maps(call: Call, grad: Tensor) -> Tensor:
    polar, conjugate, form = call.numbers
    return _filter_maps(grad, _swapped(call.tensors[1]), polar, not conjugate, form)


def _maps_to_functions(call: Call, grad: Tensor) -> Tensor:
    (x, weight), (polar, conjugate, form) = call.tensors, call.numbers
    if conjugate:
        return _swapped(_maps_gradient(grad, x, _swapped(weight), polar, form))
    return _maps_gradient(x, grad, weight, polar, form)


def _maps_gradient(x: Tensor, grad: Tensor, weight: Tensor, polar: bool, form: str) -> Tensor:
    H, W = x.shape[-2:]
    # Parseval: a sum over pixels is one over the whole plane, where columns that have a mirror count twice.
    own = is_own_mirror(torch.arange(W // 2 + 1, device=x.device), W)
    G = torch.fft.rfft2(grad) * ((2 - own.to(x.dtype)) / (H * W))
    return filters_gradient(torch.fft.rfft2(x), G, weight, W, polar, form)


def _maps_along(call: Call, moved: Tensor) -> Tensor:
    (x, weight), (polar, conjugate, form) = call.tensors, call.numbers
    if weight.shape[-1] == filters_kernel.LINEAR:
        return _filter_maps(x, moved, *call.numbers)
    Y_ = _along(torch.fft.rfft2(x), weight, moved, x.shape[-1], polar, conjugate, form)
    y_: Tensor = torch.fft.irfft2(Y_, s=x.shape[-2:])
    return y_


@operator(
    "spectral_kernels::filter_maps",
    shape=lambda x, weight, *_: x.new_empty(x.shape[0], weight.shape[0], *x.shape[2:]),
    transposes={(0,): _to_maps, (1,): _maps_to_functions},
    tangents={(1,): _maps_along},
    samples=_SAMPLES,
)
def _filter_maps(x: Tensor, weight: Tensor, polar: bool, conjugate: bool, form: str) -> Tensor:
    Y = _multiply(torch.fft.rfft2(x.detach()), weight, x.shape[-1], polar, conjugate, form)
    y: Tensor = torch.fft.irfft2(Y, s=x.shape[-2:])
    return y


# The gradient's product with `along` is <G, how filters(X, weight) moves along>.


def _gradient_to_spectra(call: Call, along: Tensor) -> Tensor:
    (_, G, weight), (width, polar, form) = call.tensors, call.numbers
    return _along(G, _swapped(weight), _swapped(along), width, polar, True, form)


def _gradient_to_gradient(call: Call, along: Tensor) -> Tensor:
    (X, _, weight), (width, polar, form) = call.tensors, call.numbers
    return _along(X, weight, along, width, polar, False, form)


def _gradient_to_functions(call: Call, along: Tensor) -> Tensor | None:
    (X, G, weight), (width, polar, _) = call.tensors, call.numbers
    return _gradient_along(X, G, weight, along, width, polar)


def _gradient_moved(call: Call, along: Tensor) -> Tensor:
    moved = _gradient_to_functions(call, along)  # it is its own transpose: a matrix of second derivatives
    return torch.zeros_like(along) if moved is None else moved


@operator(
    "spectral_kernels::filters_gradient",
    shape=lambda X, G, weight, *_: weight.new_empty(weight.shape),
    transposes={(0,): _gradient_to_spectra, (1,): _gradient_to_gradient, (2,): _gradient_to_functions},
    tangents={(2,): _gradient_moved},
    samples=[Along((None, 1, 0), (0,))],  # more outputs
)
def filters_gradient(X: Tensor, G: Tensor, weight: Tensor, width: int, polar: bool, form: str) -> Tensor:
    """Gradient of `filters` with respect to weight: X (B, C, H, V), G (B, O, H, V) complex -> (O, C, 2, P)."""
    _check_functions(weight, X.shape[1])
    if G.shape != (X.shape[0], weight.shape[0], *X.shape[2:]):
        raise ValueError(f"G {tuple(G.shape)} is no gradient of filters({tuple(X.shape)}, {tuple(weight.shape)})")
    forms = Forms(filters_kernel.reference_gradient, filters_kernel.cpu_gradient, filters_kernel.cuda_gradient)
    work = X.numel() * weight.shape[0] // calibration.PRODUCTS_AN_ENTRY
    return run(forms, form, work, (X, G, weight), width, _coordinates(X, weight, width, polar, form))
