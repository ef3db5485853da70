"""Threshold and pack, and the way back, on torch tensors."""

from functools import partial

import numpy as np
import torch
from torch import Tensor

from spectral_kernels import threshold
from spectral_kernels.dispatch._devices import Form, choose_form, host_empty, need_complex, on_gpu, plain, threads_for


def threshold_pack(x_hat: Tensor, beta: float, form: Form = "auto") -> tuple[Tensor, Tensor]:
    """Pack the coefficients with |x_hat| > beta: any shape, complex64 or complex128 -> bitmap, values.

    bitmap (ceil(N/8),) uint8 and values (K,), as described in `spectral_kernels.threshold`; N = x_hat.numel().
    """
    if x_hat.dtype not in (torch.complex64, torch.complex128):
        raise TypeError(f"threshold_pack takes complex64 or complex128 coefficients, not {x_hat.dtype}")
    if not beta >= 0:
        raise ValueError(f"beta={beta} must be a number >= 0: coefficients with |x_hat| <= beta are dropped")
    form = choose_form(form, x_hat.device)
    flat = plain(x_hat).reshape(-1)
    if form == "cuda":
        with torch.cuda.device(flat.device):
            return threshold.cuda(flat, beta, **on_gpu(flat.device))
    run = partial(threshold.cpu, empty=host_empty) if form == "cpu" else threshold.reference
    with threads_for(flat.numel()):
        bitmap, values = run(flat.numpy(), beta)
    return torch.from_numpy(bitmap), torch.from_numpy(values)


def threshold_expand(bitmap: Tensor, values: Tensor, shape: tuple[int, ...], form: Form = "auto") -> Tensor:
    """Undo `threshold_pack`: the dense tensor of this shape, zero where nothing was kept."""
    count = int(np.prod(shape, dtype=np.int64))
    _check_bitmap(bitmap, tuple(shape), count)
    form = choose_form(form, values.device)
    bitmap, values = bitmap.contiguous(), plain(values)
    if form == "cuda":
        with torch.cuda.device(values.device):
            return threshold.cuda_expand(bitmap, values, count, **on_gpu(values.device)).reshape(shape)
    run = partial(threshold.cpu_expand, empty=host_empty) if form == "cpu" else threshold.reference_expand
    with threads_for(count):
        return torch.from_numpy(run(bitmap.numpy(), values.numpy(), count)).reshape(shape)


def threshold_gather(x_hat: Tensor, bitmap: Tensor, form: Form = "auto") -> Tensor:
    """The entries that a bitmap marks, in order: x_hat of any shape -> (K,). The adjoint of `threshold_expand`."""
    need_complex("threshold_gather", x_hat=x_hat)
    _check_bitmap(bitmap, tuple(x_hat.shape), x_hat.numel())
    form = choose_form(form, x_hat.device)
    flat, bitmap = plain(x_hat).reshape(-1), bitmap.contiguous()
    if form == "cuda":
        with torch.cuda.device(flat.device):
            return threshold.cuda_gather(flat, bitmap, **on_gpu(flat.device))
    run = partial(threshold.cpu_gather, empty=host_empty) if form == "cpu" else threshold.reference_gather
    with threads_for(flat.numel()):
        return torch.from_numpy(run(flat.numpy(), bitmap.numpy()))


def _check_bitmap(bitmap: Tensor, shape: tuple[int, ...], count: int) -> None:
    if bitmap.numel() != -(-count // 8) or bitmap.dtype != torch.uint8:
        raise ValueError(
            f"shape {shape} needs a uint8 bitmap of {-(-count // 8)} bytes, got {bitmap.numel()} of {bitmap.dtype}"
        )
