"""Channel products of spectra, on torch tensors."""

from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from spectral_kernels import calibration
from spectral_kernels import product as product_kernel
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


def _check_multiplications(multiplications: int) -> None:
    if multiplications not in (3, 4):
        raise ValueError(f"multiplications={multiplications} must be 4 (the definition) or 3 (Gauss)")


def product(
    x_hat: Tensor,
    w_hat: Tensor,
    conjugate: bool = False,
    form: Form | Literal["gemm"] = "auto",
    multiplications: int = 4,
) -> Tensor:
    """Matrix product at every frequency: (F, B, C), (F, C, O) -> (F, B, O), complex; differentiable.

    conjugate        multiply by the conjugate of w_hat
    form             as everywhere, or "gemm": torch's batched matrix product; "auto" picks by the number of channels
    multiplications  real ones in a complex product: 4, or 3 after Gauss
    """
    need_complex("product", x_hat=x_hat, w_hat=w_hat)
    _check_multiplications(multiplications)
    if x_hat.ndim != 3 or w_hat.ndim != 3 or x_hat.shape[0] != w_hat.shape[0] or x_hat.shape[2] != w_hat.shape[1]:
        raise ValueError(
            f"product takes (F, B, C) and (F, C, O) with the same F and C, "
            f"got {tuple(x_hat.shape)} and {tuple(w_hat.shape)}"
        )
    if form == "auto":
        few = w_hat.shape[1] <= calibration.FEW_CHANNELS.get(x_hat.device.type, 0)
        form = "auto" if few and w_hat.shape[2] >= calibration.MANY_OUTPUTS else "gemm"
    chosen = form if form == "gemm" else operator_form(form, x_hat.device)
    return torch.ops.spectral_kernels.product(x_hat, w_hat, False, conjugate, chosen, multiplications)


def _readable(x: Tensor) -> Tensor:
    """As it is where BLAS can read it, or its transpose, in place; copied once otherwise.

    torch.bmm copies other views too, but frequency by frequency: 9 s instead of 57 ms for (576, 32, 64).
    """
    (rows, columns), (down, across) = x.shape[-2:], x.stride()[-2:]
    in_place = (across == 1 and down >= columns) or (down == 1 and across >= rows)
    return x if in_place else x.contiguous()


def _gemm(a: Tensor, b: Tensor, multiplications: int) -> Tensor:
    if multiplications == 4:
        return torch.bmm(_readable(a), _readable(b))
    # Real and imaginary parts are views with gaps, which BLAS cannot read either.
    (a_re, a_im), (b_re, b_im) = ((part.real.contiguous(), part.imag.contiguous()) for part in (a, b))
    common = torch.bmm(a_re + a_im, b_re)
    real = torch.baddbmm(common, a_im, b_re + b_im, alpha=-1)
    return torch.complex(real, torch.baddbmm(common, a_re, b_im - b_re))


@operator("spectral_kernels::product")
def _product(a: Tensor, b: Tensor, conjugate_a: bool, conjugate_b: bool, form: str, multiplications: int) -> Tensor:
    if form == "gemm":  # in here, so that the operands of its derivatives are readable too
        a, b = a.detach(), b.detach()
        return _gemm(a.conj() if conjugate_a else a, b.conj() if conjugate_b else b, multiplications)
    flags = (conjugate_a, conjugate_b, multiplications)
    a, b = plain(a), plain(b)
    if form == "cuda":
        with torch.cuda.device(a.device):
            return product_kernel.cuda(a, b, *flags, **on_gpu(a.device))
    run = partial(product_kernel.cpu, empty=host_empty) if form == "cpu" else product_kernel.reference
    with threads_for(a.shape[0] * a.shape[1] * a.shape[2] * b.shape[2] // calibration.PRODUCTS_AN_ENTRY):
        return torch.from_numpy(run(a.numpy(), b.numpy(), *flags))


@_product.fake
def _(a: Tensor, b: Tensor, conjugate_a: bool, conjugate_b: bool, form: str, multiplications: int) -> Tensor:
    return a.new_empty(a.shape[0], a.shape[1], b.shape[2])


@_product.multilinear
def _(call: Call, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
    (a, b), (conjugate_a, conjugate_b, *rest) = call.tensors, call.numbers
    of_a, of_b = product_kernel.adjoints(conjugate_a, conjugate_b)
    grad_a = _product(grad, b.mT, *of_a, *rest) if call.needs[0] else None
    grad_b = _product(a.mT, grad, *of_b, *rest) if call.needs[1] else None
    return grad_a, grad_b


@_product.vmap
def _(info: Any, in_dims: tuple[Any, ...], a: Tensor, b: Tensor, *flags: Any) -> tuple[Tensor, int]:
    y = _product(fold(a, in_dims[0], info.batch_size), fold(b, in_dims[1], info.batch_size), *flags)
    return y.unflatten(0, (info.batch_size, y.shape[0] // info.batch_size)), 0


def product_native(
    x_hat: Tensor,
    w_hat: Tensor,
    groups: int = 1,
    conjugate: bool = False,
    form: Form | Literal["gemm"] = "auto",
    multiplications: int = 4,
) -> Tensor:
    """`product` on spectra as transforms leave them: (B, G C, F), (G O, C, F) -> (B, G O, F), complex; differentiable.

    For few channels and depth-wise filters (C == 1), where a matrix product has nothing to work on.
    groups  G; channels and outputs are divided among them in order, as in torch's convolutions
    """
    need_complex("product_native", x_hat=x_hat, w_hat=w_hat)
    _check_multiplications(multiplications)
    if x_hat.ndim != 3 or w_hat.ndim != 3 or x_hat.shape[2] != w_hat.shape[2]:
        raise ValueError(
            f"product_native takes (B, G*C, F) and (G*O, C, F) with the same F, "
            f"got {tuple(x_hat.shape)} and {tuple(w_hat.shape)}"
        )
    if groups < 1 or w_hat.shape[0] % groups or x_hat.shape[1] != groups * w_hat.shape[1]:
        raise ValueError(
            f"groups={groups} does not fit {x_hat.shape[1]} channels and {w_hat.shape[0]} filters of "
            f"{w_hat.shape[1]}: groups must divide the filters, and groups * {w_hat.shape[1]} be the channels"
        )
    a = x_hat.unflatten(1, (groups, w_hat.shape[1])).movedim(1, 0)
    b = w_hat.unflatten(0, (groups, w_hat.shape[0] // groups))
    if form == "auto" and w_hat.shape[1] > calibration.FEW_CHANNELS_NATIVE.get(x_hat.device.type, 0):
        form = "gemm"
    if form == "gemm":
        F = x_hat.shape[2]
        wide_a, wide_b = a.permute(0, 3, 1, 2).flatten(0, 1), b.permute(0, 3, 2, 1).flatten(0, 1)
        y = product(wide_a, wide_b, conjugate, "gemm", multiplications)
        return y.unflatten(0, (groups, F)).permute(2, 0, 3, 1).flatten(1, 2).contiguous()
    chosen = operator_form(form, x_hat.device)
    return (
        torch.ops.spectral_kernels.product_native(a, b, False, conjugate, chosen, multiplications)
        .movedim(0, 1)
        .flatten(1, 2)
    )


@operator("spectral_kernels::product_native")
def _native(a: Tensor, b: Tensor, conjugate_a: bool, conjugate_b: bool, form: str, multiplications: int) -> Tensor:
    """(G, P, K, F), (G, Q, K, F) -> (G, P, Q, F), in memory (P, G, Q, F)."""
    flags = (conjugate_a, conjugate_b, multiplications)
    a, b = (t.detach().resolve_conj().resolve_neg() for t in (a, b))  # views keep their strides
    (G, P, K, F), Q = a.shape, b.shape[1]
    if form == "cuda":
        with torch.cuda.device(a.device):
            flat = product_kernel.cuda_native(_flat(a), _flat(b), (G, P, Q, K, F), *flags, **on_gpu(a.device))
        return flat.reshape(P, G, Q, F).movedim(0, 1)
    run = partial(product_kernel.cpu_native, empty=host_empty) if form == "cpu" else product_kernel.reference_native
    with threads_for(G * P * Q * K * F // calibration.PRODUCTS_AN_ENTRY):
        out = torch.from_numpy(run(a.numpy(), b.numpy(), *flags))
    return out.movedim(1, 0).contiguous().movedim(0, 1)


def _flat(tensor: Tensor) -> tuple[Tensor, tuple[int, ...]]:
    """A tensor's memory in one row, and the strides of all axes but the last, which is made contiguous."""
    if tensor.shape[-1] > 1 and tensor.stride(-1) != 1:
        tensor = tensor.contiguous()
    reach = 1 + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True)) if tensor.numel() else 0
    return tensor.as_strided((reach,), (1,)), tuple(tensor.stride()[:-1])


@_native.fake
def _(a: Tensor, b: Tensor, conjugate_a: bool, conjugate_b: bool, form: str, multiplications: int) -> Tensor:
    return a.new_empty(a.shape[1], a.shape[0], b.shape[1], a.shape[3]).movedim(0, 1)


@_native.multilinear
def _(call: Call, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
    (a, b), (conjugate_a, conjugate_b, *rest) = call.tensors, call.numbers
    of_a, of_b = product_kernel.adjoints(conjugate_a, conjugate_b)
    grad_a = _native(grad, b.transpose(1, 2), *of_a, *rest) if call.needs[0] else None
    grad_b = None
    if call.needs[1]:
        grad_b = _native(grad.transpose(1, 2), a.transpose(1, 2), *of_b[::-1], *rest)
    return grad_a, grad_b


@_native.vmap
def _(info: Any, in_dims: tuple[Any, ...], a: Tensor, b: Tensor, *flags: Any) -> tuple[Tensor, int]:
    y = _native(fold(a, in_dims[0], info.batch_size), fold(b, in_dims[1], info.batch_size), *flags)
    return y.unflatten(0, (info.batch_size, y.shape[0] // info.batch_size)), 0
