"""Channel products of sparse maps, on torch tensors."""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from spectral_kernels import calibration
from spectral_kernels import sparse_product as kernel
from spectral_kernels.dispatch._devices import (
    Form,
    fold,
    host_empty,
    need_complex,
    operator_form,
    plain,
    threads_for,
)
from spectral_kernels.dispatch._operators import Call, operator


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


@operator("spectral_kernels::sparse_product")
def _product(x_hat: Tensor, w_hat: Tensor, conjugate: bool, form: str) -> Tensor:
    run = partial(kernel.cpu, empty=host_empty) if form == "cpu" else kernel.reference
    with threads_for(x_hat.numel() * w_hat.shape[3] // calibration.SPARSE_PRODUCTS_AN_ENTRY):
        return torch.from_numpy(run(plain(x_hat).numpy(), plain(w_hat).numpy(), conjugate))


@operator("spectral_kernels::sparse_product_gradient")
def _gradient(x_hat: Tensor, grad: Tensor, form: str) -> Tensor:
    run = partial(kernel.cpu_gradient, empty=host_empty) if form == "cpu" else kernel.reference_gradient
    with threads_for(x_hat.numel() * grad.shape[2] // calibration.SPARSE_PRODUCTS_AN_ENTRY):
        return torch.from_numpy(run(plain(x_hat).numpy(), plain(grad).numpy()))


@_product.fake
def _(x_hat: Tensor, w_hat: Tensor, conjugate: bool, form: str) -> Tensor:
    return x_hat.new_empty((*x_hat.shape[:2], w_hat.shape[3]))


@_gradient.fake
def _(x_hat: Tensor, grad: Tensor, form: str) -> Tensor:
    return x_hat.new_empty((2, x_hat.shape[0], x_hat.shape[2], grad.shape[2]), dtype=x_hat.dtype.to_real())


@_product.multilinear
def _(call: Call, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
    (x_hat, w_hat), (conjugate, form) = call.tensors, call.numbers
    of_x = _product(grad, w_hat.mT, not conjugate, form) if call.needs[0] else None
    of_w = _gradient(x_hat, grad, form) if call.needs[1] else None
    if of_w is not None and conjugate:
        of_w = torch.stack([of_w[0], -of_w[1]])
    return of_x, of_w


@_gradient.multilinear
def _(call: Call, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
    (x_hat, other), (form,) = call.tensors, call.numbers
    of_x = _product(other, grad.mT, True, form) if call.needs[0] else None
    return of_x, _product(x_hat, grad, False, form) if call.needs[1] else None


@_product.vmap
def _(
    info: Any, in_dims: tuple[Any, ...], x_hat: Tensor, w_hat: Tensor, conjugate: bool, form: str
) -> tuple[Tensor, int]:
    x_hat = fold(x_hat, in_dims[0], info.batch_size)
    y = _product(x_hat, _fold_parts(w_hat, in_dims[1], info.batch_size), conjugate, form)
    return y.unflatten(0, (info.batch_size, y.shape[0] // info.batch_size)), 0


@_gradient.vmap
def _(info: Any, in_dims: tuple[Any, ...], x_hat: Tensor, grad: Tensor, form: str) -> tuple[Tensor, int]:
    x_hat, grad = (fold(t, dim, info.batch_size) for t, dim in zip((x_hat, grad), in_dims[:2], strict=True))
    y = _gradient(x_hat, grad, form)
    return y.unflatten(1, (info.batch_size, y.shape[1] // info.batch_size)), 1


def _fold_parts(w_hat: Tensor, dim: int | None, size: int) -> Tensor:
    """(2, F, C, O) with a mapped dimension -> (2, size * F, C, O)."""
    batched = w_hat.expand(size, *w_hat.shape) if dim is None else w_hat.movedim(dim, 0)
    return batched.movedim(0, 1).flatten(1, 2)
