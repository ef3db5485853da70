"""Threshold, activate and pack, and its backward, on torch tensors."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, overload

import torch
from torch import Tensor

from spectral_kernels import activate as activate_kernel
from spectral_kernels.dispatch._devices import Form, choose_form, host_empty, need_complex, on_gpu, plain, threads_for


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
    """
    need_complex("activate", x_hat=x_hat)
    _check_activation(activation)
    if not beta >= 0:
        raise ValueError(f"beta={beta} must be a number >= 0: coefficients with |x_hat| <= beta are dropped")
    form = choose_form(form, x_hat.device)
    flat = plain(x_hat).reshape(-1)
    if form == "cuda":
        with torch.cuda.device(flat.device):
            out, bitmap, values = activate_kernel.cuda(flat, beta, activation, **on_gpu(flat.device))
        return out.reshape(x_hat.shape) if dense else None, bitmap, values
    cpu = partial(activate_kernel.cpu, empty=host_empty, dense=dense)
    run: Callable[..., Any] = cpu if form == "cpu" else activate_kernel.reference
    with threads_for(flat.numel()):
        whole, *stored = run(flat.numpy(), beta, activation)
    bitmap, values = (torch.from_numpy(array) for array in stored)
    return torch.from_numpy(whole).reshape(x_hat.shape) if dense else None, bitmap, values


def activate_backward(
    grad: Tensor, bitmap: Tensor, values: Tensor, activation: str = "tanh", form: Form = "auto"
) -> Tensor:
    """Gradient of `activate`'s input from the gradient of its output and the store: grad of any shape -> the same."""
    need_complex("activate_backward", grad=grad, values=values)
    _check_activation(activation)
    if bitmap.numel() != -(-grad.numel() // 8) or bitmap.dtype != torch.uint8:
        raise ValueError(
            f"a gradient {tuple(grad.shape)} needs a uint8 bitmap of {-(-grad.numel() // 8)} bytes, "
            f"got {bitmap.numel()} of {bitmap.dtype}"
        )
    form = choose_form(form, grad.device)
    flat, bitmap, values = plain(grad).reshape(-1), bitmap.contiguous(), plain(values)
    if form == "cuda":
        with torch.cuda.device(flat.device):
            back = activate_kernel.cuda_backward(flat, bitmap, values, activation, **on_gpu(flat.device))
        return back.reshape(grad.shape)
    cpu = partial(activate_kernel.cpu_backward, empty=host_empty)
    run = cpu if form == "cpu" else activate_kernel.reference_backward
    with threads_for(flat.numel()):
        return torch.from_numpy(run(flat.numpy(), bitmap.numpy(), values.numpy(), activation)).reshape(grad.shape)


def _check_activation(activation: str) -> None:
    if activation not in activate_kernel.ACTIVATIONS:
        raise ValueError(f"activation={activation!r} is unknown; pick one of {', '.join(activate_kernel.ACTIVATIONS)}")
