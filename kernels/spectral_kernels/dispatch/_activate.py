"""Threshold, activate and pack, and its backward, on torch tensors."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, overload

import torch
from torch import Tensor

from spectral_kernels import activate as activate_kernel
from spectral_kernels.dispatch._devices import (
    Form,
    choose_form,
    host_empty,
    need_complex,
    on_gpu,
    operator_form,
    plain,
    threads_for,
)
from spectral_kernels.dispatch._operators import operator
from spectral_kernels.dispatch._threshold import check_beta, outside_autograd, refuse_vmap, some


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

    out         as x_hat; bitmap (ceil(N/8),) uint8 and values (K,) are its entries that were kept, packed as
                `threshold_pack` does, and all that `activate_backward` needs
    activation  "tanh", "softsign", "arctan", "hardtanh" or "identity": odd ones, which keep Hermitian symmetry
    dense       False for whom the packed form is enough: `out` is None, and on a CPU never made

    Outside of autograd, as `threshold_pack` is and with what that refuses: `activate_backward` is its adjoint.
    """
    need_complex("activate", x_hat=x_hat)
    _check_activation(activation)
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
    _check_activation(activation)
    if bitmap.numel() != -(-grad.numel() // 8) or bitmap.dtype != torch.uint8:
        raise ValueError(
            f"a gradient {tuple(grad.shape)} needs a uint8 bitmap of {-(-grad.numel() // 8)} bytes, "
            f"got {bitmap.numel()} of {bitmap.dtype}"
        )
    flat, values = outside_autograd(grad).reshape(-1), outside_autograd(values)
    return _backward(flat, bitmap, values, activation, operator_form(form, grad.device)).reshape(grad.shape)


@operator("spectral_kernels::activate")
def _activate(x_hat: Tensor, beta: float, activation: str, dense: bool, form: str) -> tuple[Tensor, Tensor, Tensor]:
    """out (N,), or (0,) where it is not wanted, bitmap, values."""
    x_hat = plain(x_hat)
    if form == "cuda":
        with torch.cuda.device(x_hat.device):
            out, *packed = activate_kernel.cuda(x_hat, beta, activation, **on_gpu(x_hat.device))
        return out if dense else x_hat.new_empty(0), *packed
    cpu = partial(activate_kernel.cpu, empty=host_empty, dense=dense)
    run: Callable[..., Any] = cpu if form == "cpu" else activate_kernel.reference
    with threads_for(x_hat.numel()):
        whole, *stored = run(x_hat.numpy(), beta, activation)
    bitmap, values = (torch.from_numpy(array) for array in stored)
    return torch.from_numpy(whole) if dense else x_hat.new_empty(0), bitmap, values


@operator("spectral_kernels::activate_backward")
def _backward(grad: Tensor, bitmap: Tensor, values: Tensor, activation: str, form: str) -> Tensor:
    grad, bitmap, values = plain(grad), plain(bitmap), plain(values)
    if form == "cuda":
        with torch.cuda.device(grad.device):
            return activate_kernel.cuda_backward(grad, bitmap, values, activation, **on_gpu(grad.device))
    cpu = partial(activate_kernel.cpu_backward, empty=host_empty)
    run = cpu if form == "cpu" else activate_kernel.reference_backward
    with threads_for(grad.numel()):
        return torch.from_numpy(run(grad.numpy(), bitmap.numpy(), values.numpy(), activation))


@_activate.fake
def _(x_hat: Tensor, beta: float, activation: str, dense: bool, form: str) -> tuple[Tensor, Tensor, Tensor]:
    out = torch.empty_like(x_hat, memory_format=torch.contiguous_format) if dense else x_hat.new_empty(0)
    return out, x_hat.new_empty((-(-x_hat.shape[0] // 8),), dtype=torch.uint8), some(x_hat)


@_backward.fake
def _(grad: Tensor, *rest: Any) -> Tensor:
    return torch.empty_like(grad, memory_format=torch.contiguous_format)


@_activate.vmap
def _(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> Any:
    refuse_vmap("activate")


@_backward.vmap
def _(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> Any:
    refuse_vmap("activate_backward")


def _check_activation(activation: str) -> None:
    if activation not in activate_kernel.ACTIVATIONS:
        raise ValueError(f"activation={activation!r} is unknown; pick one of {', '.join(activate_kernel.ACTIVATIONS)}")
