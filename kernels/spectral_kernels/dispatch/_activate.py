"""Threshold, activate and pack, and its backward, on torch tensors."""

from functools import partial
from typing import Literal, overload

import torch
from torch import Tensor

from spectral_kernels import activate as activate_kernel
from spectral_kernels.dispatch._devices import Form, Forms, choose_form, need_complex, operator_form, run
from spectral_kernels.dispatch._numbers import check_beta, one_of
from spectral_kernels.dispatch._operators import operator
from spectral_kernels.dispatch._threshold import check_bitmap, empty_bitmap, outside_autograd, refuse_vmap, some


@overload
def activate(
    x_hat: Tensor, beta: float, activation: str = ..., form: Form = ..., *, dense: Literal[True] = ...
) -> tuple[Tensor, Tensor, Tensor]: ...
@overload
def activate(
    x_hat: Tensor, beta: float, activation: str = ..., form: Form = ..., *, dense: Literal[False]
) -> tuple[None, Tensor, Tensor]: ...
def activate(
    x_hat: Tensor, beta: float, activation: str = "tanh", form: Form = "auto", *, dense: bool = True
) -> tuple[Tensor | None, Tensor, Tensor]:
    """Zero where |x_hat| <= beta, else the activation of real and imaginary part: any shape -> out, bitmap, values.

    out         the shape of x_hat. bitmap (ceil(N/8),) uint8 and values (K,) hold the K entries that were kept, packed
                as `threshold_pack` does; they are all that `activate_backward` needs
    activation  "tanh", "softsign", "arctan", "hardtanh" or "identity": odd ones, which keep Hermitian symmetry
    dense       False if the packed form is enough: `out` is then None, and on a CPU it is never made

    Not differentiable, and refused where `threshold_pack` is refused; `activate_backward` gives the gradient.
    """
    need_complex("activate", x_hat=x_hat)
    one_of(activation, "activation", activate_kernel.ACTIVATIONS)
    beta = check_beta(beta)
    flat = outside_autograd(x_hat).reshape(-1)
    out, bitmap, values = _activate(flat, beta, activation, dense, choose_form(form, x_hat.device))
    return out.reshape(x_hat.shape) if dense else None, bitmap, values


def activate_backward(
    grad: Tensor, bitmap: Tensor, values: Tensor, activation: str = "tanh", form: Form = "auto"
) -> Tensor:
    """Gradient of `activate`'s input from the gradient of its output and the store: grad of any shape -> the same.

    Not differentiable itself.
    """
    need_complex("activate_backward", grad=grad, values=values)
    one_of(activation, "activation", activate_kernel.ACTIVATIONS)
    check_bitmap(bitmap, f"a gradient {tuple(grad.shape)}", grad.numel())
    flat, values = outside_autograd(grad).reshape(-1), outside_autograd(values)
    return _backward(flat, bitmap, values, activation, operator_form(form, grad.device)).reshape(grad.shape)


@operator(
    "spectral_kernels::activate",
    shape=lambda x_hat, beta, activation, dense, form: (
        torch.empty_like(x_hat, memory_format=torch.contiguous_format) if dense else x_hat.new_empty(0),
        empty_bitmap(x_hat),
        some(x_hat),
    ),
    samples=lambda *_: refuse_vmap("activate"),
)
def _activate(x_hat: Tensor, beta: float, activation: str, dense: bool, form: str) -> tuple[Tensor, Tensor, Tensor]:
    """out (N,), or (0,) where it is not wanted, bitmap, values."""
    forms = Forms(activate_kernel.reference, partial(activate_kernel.cpu, dense=dense), activate_kernel.cuda)
    out, bitmap, values = run(forms, form, x_hat.numel(), (x_hat,), beta, activation)
    return out if dense and out is not None else x_hat.new_empty(0), bitmap, values


@operator(
    "spectral_kernels::activate_backward",
    shape=lambda grad, *_: torch.empty_like(grad, memory_format=torch.contiguous_format),
    samples=lambda *_: refuse_vmap("activate_backward"),
)
def _backward(grad: Tensor, bitmap: Tensor, values: Tensor, activation: str, form: str) -> Tensor:
    forms = Forms(activate_kernel.reference_backward, activate_kernel.cpu_backward, activate_kernel.cuda_backward)
    return run(forms, form, grad.numel(), (grad, bitmap, values), activation)
