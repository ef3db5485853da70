"""Channel products of sparse maps, on torch tensors."""

import torch
from torch import Tensor

from spectral_kernels import calibration
from spectral_kernels import sparse_product as kernel
from spectral_kernels.dispatch._devices import Form, Forms, need_complex, operator_form, run
from spectral_kernels.dispatch._operators import Along, Call, operator


def sparse_product(x_hat: Tensor, w_hat: Tensor, conjugate: bool = False, form: Form = "auto") -> Tensor:
    """`product` where x_hat is mostly 0: (F, B, C) complex, (2, F, C, O) real -> (F, B, O) complex.

    w_hat      real and imaginary parts of the filters, of x_hat's precision
    conjugate  multiply by the conjugate of w_hat

    Differentiable in both. For the CPU; raises ValueError for tensors on a GPU, where `product` is the form to use.
    """
    need_complex("sparse_product", x_hat=x_hat)
    fits = x_hat.ndim == 3 and w_hat.ndim == 4 and tuple(w_hat.shape[:3]) == (2, x_hat.shape[0], x_hat.shape[2])
    if not fits or w_hat.dtype != x_hat.dtype.to_real():
        raise ValueError(
            f"sparse_product takes (F, B, C) and real and imaginary parts (2, F, C, O) of {x_hat.dtype.to_real()}, "
            f"got {tuple(x_hat.shape)} and {tuple(w_hat.shape)} of {w_hat.dtype}"
        )
    return _product(x_hat, w_hat, conjugate, _on_cpu("sparse_product", form, x_hat))


def sparse_product_gradient(x_hat: Tensor, grad: Tensor, form: Form = "auto") -> Tensor:
    """Gradient of `sparse_product` in the filters: (F, B, C), (F, B, O) complex -> (2, F, C, O) real."""
    need_complex("sparse_product_gradient", x_hat=x_hat, grad=grad)
    if x_hat.ndim != 3 or grad.ndim != 3 or x_hat.shape[:2] != grad.shape[:2]:
        raise ValueError(
            f"sparse_product_gradient takes (F, B, C) and (F, B, O) with the same F and B, "
            f"got {tuple(x_hat.shape)} and {tuple(grad.shape)}"
        )
    return _gradient(x_hat, grad, _on_cpu("sparse_product_gradient", form, x_hat))


def _on_cpu(name: str, form: Form, x_hat: Tensor) -> str:
    """The compiled form or the reference; there is no other."""
    form = operator_form(form, x_hat.device)
    if form == "cuda":
        raise ValueError(f"{name} has no CUDA form: use product, which multiplies the zeros too")
    return form


def _to_maps(call: Call, grad: Tensor) -> Tensor:
    conjugate, form = call.numbers
    return _product(grad, call.tensors[1].mT, not conjugate, form)


def _to_filters(call: Call, grad: Tensor) -> Tensor:
    conjugate, form = call.numbers
    gradient = _gradient(call.tensors[0], grad, form)
    return torch.stack([gradient[0], -gradient[1]]) if conjugate else gradient


@operator(
    "spectral_kernels::sparse_product",
    shape=lambda x_hat, w_hat, *_: x_hat.new_empty((*x_hat.shape[:2], w_hat.shape[3])),
    transposes={(0,): _to_maps, (1,): _to_filters},
    samples=[Along((0, 1), (0,))],
)
def _product(x_hat: Tensor, w_hat: Tensor, conjugate: bool, form: str) -> Tensor:
    work = x_hat.numel() * w_hat.shape[3] // calibration.SPARSE_PRODUCTS_AN_ENTRY
    return run(Forms(kernel.reference, kernel.cpu, None), form, work, (x_hat, w_hat), conjugate)


def _real_filters(x_hat: Tensor, grad: Tensor, form: str) -> Tensor:
    return x_hat.new_empty((2, x_hat.shape[0], x_hat.shape[2], grad.shape[2]), dtype=x_hat.dtype.to_real())


@operator(
    "spectral_kernels::sparse_product_gradient",
    shape=_real_filters,
    transposes={
        (0,): lambda call, grad: _product(call.tensors[1], grad.mT, True, *call.numbers),
        (1,): lambda call, grad: _product(call.tensors[0], grad, False, *call.numbers),
    },
    samples=[Along((0, 0), (1,))],
)
def _gradient(x_hat: Tensor, grad: Tensor, form: str) -> Tensor:
    work = x_hat.numel() * grad.shape[2] // calibration.SPARSE_PRODUCTS_AN_ENTRY
    return run(Forms(kernel.reference_gradient, kernel.cpu_gradient, None), form, work, (x_hat, grad))
