"""Channel products of spectra, on torch tensors."""

from typing import Any, Literal

import torch
from torch import Tensor

from spectral_kernels import calibration
from spectral_kernels import product as product_kernel
from spectral_kernels.dispatch._devices import Form, Forms, need_complex, operator_form, resolved, run
from spectral_kernels.dispatch._operators import Along, Call, operator


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
    out: Tensor = torch.ops.spectral_kernels.product(x_hat, w_hat, False, conjugate, chosen, multiplications)
    return out


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


def _to_a(call: Call, grad: Tensor) -> Tensor:
    conjugate_a, conjugate_b, *rest = call.numbers
    return _product(grad, call.tensors[1].mT, *product_kernel.adjoints(conjugate_a, conjugate_b)[0], *rest)


def _to_b(call: Call, grad: Tensor) -> Tensor:
    conjugate_a, conjugate_b, *rest = call.numbers
    return _product(call.tensors[0].mT, grad, *product_kernel.adjoints(conjugate_a, conjugate_b)[1], *rest)


@operator(
    "spectral_kernels::product",
    shape=lambda a, b, *_: a.new_empty(a.shape[0], a.shape[1], b.shape[2]),
    transposes={(0,): _to_a, (1,): _to_b},
    samples=[Along((0, 0), (0,))],
)
def _product(a: Tensor, b: Tensor, conjugate_a: bool, conjugate_b: bool, form: str, multiplications: int) -> Tensor:
    if form == "gemm":  # in here, so that the operands of its derivatives are readable too
        a, b = a.detach(), b.detach()
        return _gemm(a.conj() if conjugate_a else a, b.conj() if conjugate_b else b, multiplications)
    forms = Forms(product_kernel.reference, product_kernel.cpu, product_kernel.cuda)
    work = a.shape[0] * a.shape[1] * a.shape[2] * b.shape[2] // calibration.PRODUCTS_AN_ENTRY
    return run(forms, form, work, (a, b), conjugate_a, conjugate_b, multiplications)


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
        y: Tensor = product(wide_a, wide_b, conjugate, "gemm", multiplications).unflatten(0, (groups, F))
        return y.permute(2, 0, 3, 1).flatten(1, 2).contiguous()
    chosen = operator_form(form, x_hat.device)
    out: Tensor = torch.ops.spectral_kernels.product_native(a, b, False, conjugate, chosen, multiplications)
    return out.movedim(0, 1).flatten(1, 2)


def _flat(tensor: Tensor) -> tuple[Tensor, tuple[int, ...]]:
    """A tensor's memory in one row, and the strides of all axes but the last, which is made contiguous."""
    if tensor.shape[-1] > 1 and tensor.stride(-1) != 1:
        tensor = tensor.contiguous()
    reach = 1 + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True)) if tensor.numel() else 0
    return tensor.as_strided((reach,), (1,)), tuple(tensor.stride()[:-1])


def _cuda_native(a: Tensor, b: Tensor, *flags: Any, **where: Any) -> Tensor:
    (G, P, K, F), Q = a.shape, b.shape[1]
    out: Tensor = product_kernel.cuda_native(_flat(a), _flat(b), (G, P, Q, K, F), *flags, **where)
    return out.reshape(P, G, Q, F).movedim(0, 1)


def _native_to_a(call: Call, grad: Tensor) -> Tensor:
    conjugate_a, conjugate_b, *rest = call.numbers
    flags, _ = product_kernel.adjoints(conjugate_a, conjugate_b)
    return _native(grad, call.tensors[1].transpose(1, 2), *flags, *rest)


def _native_to_b(call: Call, grad: Tensor) -> Tensor:
    conjugate_a, conjugate_b, *rest = call.numbers
    _, flags = product_kernel.adjoints(conjugate_a, conjugate_b)
    return _native(grad.transpose(1, 2), call.tensors[0].transpose(1, 2), *flags[::-1], *rest)


@operator(
    "spectral_kernels::product_native",
    shape=lambda a, b, *_: a.new_empty(a.shape[1], a.shape[0], b.shape[1], a.shape[3]).movedim(0, 1),
    transposes={(0,): _native_to_a, (1,): _native_to_b},
    samples=[Along((0, 0), (0,))],
)
def _native(a: Tensor, b: Tensor, conjugate_a: bool, conjugate_b: bool, form: str, multiplications: int) -> Tensor:
    """(G, P, K, F), (G, Q, K, F) -> (G, P, Q, F), in memory (P, G, Q, F)."""
    forms = Forms(product_kernel.reference_native, product_kernel.cpu_native, _cuda_native)
    work = a.numel() * b.shape[1] // calibration.PRODUCTS_AN_ENTRY
    flags = conjugate_a, conjugate_b, multiplications
    out = run(forms, form, work, (a, b), *flags, as_is=resolved)  # views keep their strides
    return out if form == "cuda" else out.movedim(1, 0).contiguous().movedim(0, 1)
