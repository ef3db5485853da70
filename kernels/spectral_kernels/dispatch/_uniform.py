"""Real numbers as whole multiples of a step, and back, on torch tensors."""

from __future__ import annotations

import torch
from torch import Tensor

from spectral_kernels import uniform
from spectral_kernels.dispatch._devices import Form, Forms, choose_form, need_type, run
from spectral_kernels.dispatch._numbers import real


def uniform_quantise(x: Tensor, step: float, rounding: float = uniform.ROUNDING, form: Form = "auto") -> Tensor:
    """float32 of any shape -> int32 codes sign(x) floor(|x| / step + rounding); see `spectral_kernels.uniform`.

    Raises ValueError for a step that is not positive or whose reciprocal float32 lacks.
    """
    need_type("uniform_quantise", torch.float32, x=x)
    forms = Forms(uniform.reference, uniform.cpu, uniform.cuda)
    return run(forms, choose_form(form, x.device), x.numel(), (x,), check_step(step), check_rounding(rounding))


def uniform_expand(codes: Tensor, step: float, form: Form = "auto") -> Tensor:
    """Undo `uniform_quantise`: int32 of any shape -> float32 code * step; NaN where there was none, or infinity."""
    need_type("uniform_expand", torch.int32, codes=codes)
    forms = Forms(uniform.reference_expand, uniform.cpu_expand, uniform.cuda_expand)
    return run(forms, choose_form(form, codes.device), codes.numel(), (codes,), check_step(step))


def check_step(step: float) -> float:
    step = real(step, "step")
    if not uniform.SMALLEST_STEP <= step <= uniform.LARGEST_FINITE:
        raise ValueError(f"step={step} must be a number from {uniform.SMALLEST_STEP} to float32's largest")
    return step


def check_rounding(rounding: float) -> float:
    rounding = real(rounding, "rounding")
    if not 0 <= rounding <= 1:
        raise ValueError(f"rounding={rounding} must be between 0, which cuts fractions off, and 1; 0.5 is to nearest")
    return rounding
