"""Mean and variance of maps, on torch tensors."""

from __future__ import annotations

import torch
from torch import Tensor

from spectral_kernels import moments as kernel
from spectral_kernels.dispatch._devices import Form, Forms, choose_form, need_type, run


def moments(x: Tensor, form: Form = "auto") -> tuple[Tensor, Tensor]:
    """(N, F) float32 -> each map's mean and its variance about that, both (N,) float64.

    The variance is NaN where a number is not finite. Raises ValueError for maps without numbers.
    """
    need_type("moments", torch.float32, x=x)
    if x.ndim != 2 or not x.shape[1]:
        raise ValueError(f"moments takes maps (N, F) of at least one number, not {tuple(x.shape)}")
    form = choose_form(form, x.device)
    return run(Forms(kernel.reference, kernel.cpu, kernel.cuda), form, x.numel() // 8, (x,))
