"""Multiply spectra by filters that are functions of frequency, on torch tensors.

The kernels multiply and give the gradient in the functions' numbers. What a derivative needs beyond them (how Gaussians
move with their numbers, in forward mode and in second derivatives) takes banks of O * C filters in plain torch.
"""

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor

from spectral_kernels import calibration
from spectral_kernels import filters as filters_kernel
from spectral_kernels.dispatch._constants import constant
from spectral_kernels.dispatch._devices import (
    Form,
    fold,
    host_empty,
    need_complex,
    on_gpu,
    operator_form,
    plain,
    threads_for,
)
from spectral_kernels.dispatch._operators import Call, operator


def filters(
    X: Tensor, weight: Tensor, width: int, polar: bool = False, conjugate: bool = False, form: Form = "auto"
) -> Tensor:
    """Multiply by filters and sum over channels: (B, C, H, W//2+1) complex, (O, C, 2, P) real -> (B, O, H, W//2+1).

    weight     P = 3 numbers of a linear function or 6 of a Gaussian, for the real and the imaginary part, as
               `spectral_kernels.filters` lays them out
    polar      coordinates are (angle, radius) instead of (u, v)
    conjugate  multiply by the filters' conjugates

    Where nothing but values and gradients is asked for, the filters are never held. Differentiable, in both modes.
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
    own = 2 * torch.arange(W // 2 + 1, device=device) % W == 0
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
    X, weight = plain(X), plain(weight)
    _check_functions(weight, X.shape[1])  # once more, for traced programs begin here
    if form == "cuda":
        planes = constant(_planes, X.shape[2], width, polar, weight.dtype, X.device)
        with torch.cuda.device(X.device):
            return filters_kernel.cuda(X, weight, width, planes, conjugate, **on_gpu(X.device))
    run = partial(filters_kernel.cpu, empty=host_empty) if form == "cpu" else filters_kernel.reference
    with threads_for(X.numel() * weight.shape[0] // calibration.PRODUCTS_AN_ENTRY):
        return torch.from_numpy(run(X.numpy(), weight.numpy(), width, polar, conjugate))


@operator("spectral_kernels::filters")
def _filters(X: Tensor, weight: Tensor, width: int, polar: bool, conjugate: bool, form: str) -> Tensor:
    return _multiply(X, weight, width, polar, conjugate, form)


@operator("spectral_kernels::filter_maps")
def _filter_maps(x: Tensor, weight: Tensor, polar: bool, conjugate: bool, form: str) -> Tensor:
    Y = _multiply(torch.fft.rfft2(x.detach()), weight, x.shape[-1], polar, conjugate, form)
    return torch.fft.irfft2(Y, s=x.shape[-2:])


@operator("spectral_kernels::filters_gradient")
def filters_gradient(X: Tensor, G: Tensor, weight: Tensor, width: int, polar: bool, form: str) -> Tensor:
    """Gradient of `filters` with respect to weight: X (B, C, H, V), G (B, O, H, V) complex -> (O, C, 2, P)."""
    X, G, weight = plain(X), plain(G), plain(weight)
    _check_functions(weight, X.shape[1])
    if G.shape != (X.shape[0], weight.shape[0], *X.shape[2:]):
        raise ValueError(f"G {tuple(G.shape)} is no gradient of filters({tuple(X.shape)}, {tuple(weight.shape)})")
    if form == "cuda":
        planes = constant(_planes, X.shape[2], width, polar, weight.dtype, X.device)
        with torch.cuda.device(X.device):
            return filters_kernel.cuda_gradient(X, G, weight, width, planes, **on_gpu(X.device))
    run = partial(filters_kernel.cpu_gradient, empty=host_empty) if form == "cpu" else filters_kernel.reference_gradient
    with threads_for(X.numel() * weight.shape[0] // calibration.PRODUCTS_AN_ENTRY):
        return torch.from_numpy(run(X.numpy(), G.numpy(), weight.numpy(), width, polar))


@_filters.fake
def _(X: Tensor, weight: Tensor, *rest: Any) -> Tensor:
    return X.new_empty(X.shape[0], weight.shape[0], *X.shape[2:])


@_filter_maps.fake
def _(x: Tensor, weight: Tensor, *rest: Any) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[0], *x.shape[2:])


@filters_gradient.fake
def _(X: Tensor, G: Tensor, weight: Tensor, *rest: Any) -> Tensor:
    return weight.new_empty(weight.shape)


def _filters_backward(call: Call, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
    (X, weight), (width, polar, conjugate, form) = call.tensors, call.numbers
    to_X = to_weight = None
    if call.needs[0]:
        to_X = _filters(grad, weight.transpose(0, 1), width, polar, not conjugate, form)
    if call.needs[1]:
        if conjugate:  # map and gradient change roles, so the channels do too
            to_weight = filters_gradient(grad, X, weight.transpose(0, 1), width, polar, form).transpose(0, 1)
        else:
            to_weight = filters_gradient(X, grad, weight, width, polar, form)
    return to_X, to_weight


def _filters_jvp(call: Call, X_: Tensor | None, weight_: Tensor | None) -> Tensor:
    X, weight = call.tensors
    return _sum(
        X_ is not None and _filters(X_, weight, *call.numbers),
        weight_ is not None and _along(X, weight, weight_, *call.numbers),
    )


def _sum(*terms: Any) -> Tensor:
    """Of those terms that there are."""
    first, *others = (term for term in terms if isinstance(term, Tensor))
    for other in others:
        first = first + other
    return first


_filters.differentiable(_filters_backward, _filters_jvp)


def _maps_backward(call: Call, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
    (x, weight), (polar, conjugate, form) = call.tensors, call.numbers
    to_x = to_weight = None
    if call.needs[0]:
        to_x = _filter_maps(grad, weight.transpose(0, 1), polar, not conjugate, form)
    if call.needs[1]:
        if conjugate:
            to_weight = _maps_gradient(grad, x, weight.transpose(0, 1), polar, form).transpose(0, 1)
        else:
            to_weight = _maps_gradient(x, grad, weight, polar, form)
    return to_x, to_weight


def _maps_gradient(x: Tensor, grad: Tensor, weight: Tensor, polar: bool, form: str) -> Tensor:
    H, W = x.shape[-2:]
    # Parseval: a sum over pixels is one over the whole plane, where columns that have a mirror count twice.
    own = 2 * torch.arange(W // 2 + 1, device=x.device) % W == 0
    G = torch.fft.rfft2(grad) * ((2 - own.to(x.dtype)) / (H * W))
    return filters_gradient(torch.fft.rfft2(x), G, weight, W, polar, form)


def _maps_jvp(call: Call, x_: Tensor | None, weight_: Tensor | None) -> Tensor:
    (x, weight), (polar, conjugate, form) = call.tensors, call.numbers
    moved: Tensor | None = None
    if weight_ is not None and weight.shape[-1] == filters_kernel.LINEAR:
        moved = _filter_maps(x, weight_, *call.numbers)
    elif weight_ is not None:
        Y_ = _along(torch.fft.rfft2(x), weight, weight_, x.shape[-1], polar, conjugate, form)
        moved = torch.fft.irfft2(Y_, s=x.shape[-2:])
    return _sum(x_ is not None and _filter_maps(x_, weight, *call.numbers), moved)


_filter_maps.differentiable(_maps_backward, _maps_jvp)


def _gradient_backward(call: Call, grad: Tensor) -> tuple[Tensor | None, ...]:
    # The gradient's product with `along` is <G, how filters(X, weight) moves along>.
    (X, G, weight), (width, polar, form) = call.tensors, call.numbers
    to_X = to_G = to_weight = None
    if call.needs[0]:
        to_X = _along(G, weight.transpose(0, 1), grad.transpose(0, 1), width, polar, True, form)
    if call.needs[1]:
        to_G = _along(X, weight, grad, width, polar, False, form)
    if call.needs[2]:
        to_weight = _gradient_along(X, G, weight, grad, width, polar)
    return to_X, to_G, to_weight


def _gradient_jvp(call: Call, X_: Tensor | None, G_: Tensor | None, weight_: Tensor | None) -> Tensor:
    (X, G, weight), (width, polar, _) = call.tensors, call.numbers
    moved = None if weight_ is None else _gradient_along(X, G, weight, weight_, width, polar)
    if X_ is None and G_ is None and moved is None:
        return torch.zeros_like(weight)  # linear functions' gradient does not depend on their numbers
    return _sum(
        X_ is not None and filters_gradient(X_, G, weight, *call.numbers),
        G_ is not None and filters_gradient(X, G_, weight, *call.numbers),
        moved,
    )


filters_gradient.differentiable(_gradient_backward, _gradient_jvp)


def _mapped(run: Any, info: Any, in_dims: tuple[Any, ...], X: Tensor, weight: Tensor, *rest: Any) -> Any:
    n, (x_dim, w_dim) = info.batch_size, in_dims[:2]
    if w_dim is None:  # more maps, that is all
        Y = run(fold(X, x_dim, n), weight, *rest)
        return Y.unflatten(0, (n, Y.shape[0] // n)), 0
    if x_dim is None:  # more outputs
        Y = run(X, fold(weight, w_dim, n), *rest)
        return Y.unflatten(1, (n, Y.shape[1] // n)), 1
    pairs = zip(X.movedim(x_dim, 0), weight.movedim(w_dim, 0), strict=True)
    return torch.stack([run(x, w, *rest) for x, w in pairs]), 0


@_filters.vmap
def _(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> Any:
    return _mapped(_filters, info, in_dims, *arguments)


@_filter_maps.vmap
def _(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> Any:
    return _mapped(_filter_maps, info, in_dims, *arguments)


@filters_gradient.vmap
def _(info: Any, in_dims: tuple[Any, ...], X: Tensor, G: Tensor, weight: Tensor, *rest: Any) -> tuple[Tensor, int]:
    n, (x_dim, g_dim, w_dim) = info.batch_size, in_dims[:3]
    if x_dim is None:  # more outputs
        gradients = G.expand(n, *G.shape) if g_dim is None else G.movedim(g_dim, 0)
        W = filters_gradient(X, gradients.movedim(0, 1).flatten(1, 2), fold(weight, w_dim, n), *rest)
        return W.unflatten(0, (n, W.shape[0] // n)), 0
    each = [
        [tensor] * n if dim is None else tensor.movedim(dim, 0)
        for tensor, dim in zip((X, G, weight), in_dims[:3], strict=True)
    ]
    return torch.stack([filters_gradient(*arguments, *rest) for arguments in zip(*each, strict=True)]), 0
