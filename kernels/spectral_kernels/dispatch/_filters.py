"""Multiply spectra by filters that are functions of frequency, on torch tensors."""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from spectral_kernels import filters as filters_kernel
from spectral_kernels.dispatch._constants import constant
from spectral_kernels.dispatch._devices import (
    Form,
    fold,
    host_empty,
    need_complex,
    on_gpu,
    operator,
    operator_form,
    plain,
    threads_for,
)

# Evaluating a function takes as long as a few products; what SMALL counts took 5 ns, a product takes half of one.
PRODUCTS_AN_ENTRY = 8


def filters(
    X: Tensor, weight: Tensor, width: int, polar: bool = False, conjugate: bool = False, form: Form = "auto"
) -> Tensor:
    """Multiply by filters and sum over channels: (B, C, H, W//2+1) complex, (O, C, 2, P) real -> (B, O, H, W//2+1).

    weight     P = 3 numbers of a linear function or 6 of a Gaussian, for the real and the imaginary part, as
               `spectral_kernels.filters` lays them out
    polar      coordinates are (angle, radius) instead of (u, v)
    conjugate  multiply by the filters' conjugates

    The filters are never held. Differentiable, in `weight` once.
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
    sizes = (filters_kernel.LINEAR, filters_kernel.GAUSSIAN)
    if weight.ndim != 4 or weight.shape[2] != 2 or weight.shape[3] not in sizes or weight.shape[1] != X.shape[1]:
        raise ValueError(
            f"weight {tuple(weight.shape)} must be (O, {X.shape[1]}, 2, 3) for linear functions "
            f"or (O, {X.shape[1]}, 2, 6) for Gaussians: real, then imaginary part"
        )
    chosen = operator_form(form, X.device)
    return torch.ops.spectral_kernels.filters(X, weight, width, polar, conjugate, chosen)


def _planes(H: int, W: int, polar: bool, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    p, q = (torch.from_numpy(plane) for plane in filters_kernel.coordinates(H, W, polar))
    return p.to(device, dtype), q.to(device, dtype)


@operator("spectral_kernels::filters", mutates_args=())
def _filters(X: Tensor, weight: Tensor, width: int, polar: bool, conjugate: bool, form: str) -> Tensor:
    X, weight = plain(X), plain(weight)
    if form == "cuda":
        planes = constant(_planes, X.shape[2], width, polar, weight.dtype, X.device)
        with torch.cuda.device(X.device):
            return filters_kernel.cuda(X, weight, width, planes, conjugate, **on_gpu(X.device))
    run = partial(filters_kernel.cpu, empty=host_empty) if form == "cpu" else filters_kernel.reference
    with threads_for(X.numel() * weight.shape[0] // PRODUCTS_AN_ENTRY):
        return torch.from_numpy(run(X.numpy(), weight.numpy(), width, polar, conjugate))


@operator("spectral_kernels::filters_gradient", mutates_args=())
def filters_gradient(X: Tensor, G: Tensor, weight: Tensor, width: int, polar: bool, form: str) -> Tensor:
    """Gradient of `filters` with respect to weight: X (B, C, H, V), G (B, O, H, V) complex -> (O, C, 2, P)."""
    X, G, weight = plain(X), plain(G), plain(weight)
    if form == "cuda":
        planes = constant(_planes, X.shape[2], width, polar, weight.dtype, X.device)
        with torch.cuda.device(X.device):
            return filters_kernel.cuda_gradient(X, G, weight, width, planes, **on_gpu(X.device))
    run = partial(filters_kernel.cpu_gradient, empty=host_empty) if form == "cpu" else filters_kernel.reference_gradient
    with threads_for(X.numel() * weight.shape[0] // PRODUCTS_AN_ENTRY):
        return torch.from_numpy(run(X.numpy(), G.numpy(), weight.numpy(), width, polar))


@_filters.register_fake
def _(X: Tensor, weight: Tensor, *rest: Any) -> Tensor:
    return X.new_empty(X.shape[0], weight.shape[0], *X.shape[2:])


@filters_gradient.register_fake
def _(X: Tensor, G: Tensor, weight: Tensor, *rest: Any) -> Tensor:
    return torch.empty_like(weight)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs[:2])
    ctx.rest = inputs[2:]


def _backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    X, weight = ctx.saved_tensors
    width, polar, conjugate, form = ctx.rest
    to_X = to_weight = None
    if ctx.needs_input_grad[0]:
        to_X = _filters(grad, weight.transpose(0, 1), width, polar, not conjugate, form)
    if ctx.needs_input_grad[1]:
        if conjugate:  # map and gradient change roles, so the channels do too
            to_weight = filters_gradient(grad, X, weight.transpose(0, 1), width, polar, form).transpose(0, 1)
        else:
            to_weight = filters_gradient(X, grad, weight, width, polar, form)
    return to_X, to_weight, None, None, None, None


_filters.register_autograd(_backward, setup_context=_keep)


def _no_second_derivative(ctx: Any, grad: Tensor) -> Any:
    raise RuntimeError(
        "filters has no second derivative in its functions' numbers; parametric_bank and torch.fft give one, slowly"
    )


filters_gradient.register_autograd(_no_second_derivative, setup_context=lambda ctx, inputs, output: None)


@_filters.register_vmap
def _(info: Any, in_dims: tuple[Any, ...], X: Tensor, weight: Tensor, *rest: Any) -> tuple[Tensor, int]:
    if in_dims[1] is None:  # more maps, that is all
        Y = _filters(fold(X, in_dims[0], info.batch_size), weight, *rest)
        return Y.unflatten(0, (info.batch_size, Y.shape[0] // info.batch_size)), 0
    weights = weight.movedim(in_dims[1], 0)
    spectra = X.expand(info.batch_size, *X.shape) if in_dims[0] is None else X.movedim(in_dims[0], 0)
    return torch.stack([_filters(x, w, *rest) for x, w in zip(spectra, weights, strict=True)]), 0


@filters_gradient.register_vmap
def _(info: Any, in_dims: tuple[Any, ...], X: Tensor, G: Tensor, weight: Tensor, *rest: Any) -> tuple[Tensor, int]:
    each = [
        [tensor] * info.batch_size if dim is None else tensor.movedim(dim, 0)
        for tensor, dim in zip((X, G, weight), in_dims[:3], strict=True)
    ]
    return torch.stack([filters_gradient(*arguments, *rest) for arguments in zip(*each, strict=True)]), 0
