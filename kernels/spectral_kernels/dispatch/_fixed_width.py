"""Whole numbers in groups that share a width, and back, on torch tensors."""

from __future__ import annotations

import torch
from torch import Tensor

from spectral_kernels import fixed_width
from spectral_kernels.dispatch._devices import Form, Forms, choose_form, need_type, run
from spectral_kernels.dispatch._rice import check_span, check_words
from spectral_kernels.dispatch._uniform import check_rounding, check_step
from spectral_kernels.uniform import ROUNDING


def fixed_width_encode(
    x: Tensor, step: float | None = None, rounding: float = ROUNDING, form: Form = "auto"
) -> tuple[Tensor, Tensor, Tensor]:
    """(N,) int32 codes -> widths, words, offsets, as described in `spectral_kernels.fixed_width`.

    step  with it x is float32, quantised on the way with `rounding`
    """
    need_type("fixed_width_encode", torch.int32 if step is None else torch.float32, x=x)
    if x.ndim != 1:
        raise ValueError(f"fixed_width_encode takes codes (N,), got {tuple(x.shape)}")
    forms = Forms(fixed_width.reference, fixed_width.cpu, fixed_width.cuda)
    numbers = 0.0 if step is None else check_step(step), check_rounding(rounding)
    return run(forms, choose_form(form, x.device), x.numel(), (x,), *numbers)


def fixed_width_expand(
    widths: Tensor,
    words: Tensor,
    offsets: Tensor,
    span: tuple[int, int],
    step: float | None = None,
    form: Form = "auto",
) -> Tensor:
    """Undo `fixed_width_encode` for the codes from span[0] up to span[1]: (codes,) int32, or float32 with the step.

    span[0] is the first code of a slab, a multiple of `fixed_width.SLAB_CODES`. Raises ValueError where widths, words
    and offsets disagree, and reads nothing beyond the words.
    """
    need_type("fixed_width_expand", torch.uint8, widths=widths)
    need_type("fixed_width_expand", torch.uint16, words=words)
    need_type("fixed_width_expand", torch.int64, offsets=offsets)
    first, last = check_span(span, fixed_width.SLAB_CODES)
    groups = fixed_width.groups_of(last)
    if widths.ndim != 1 or 2 * len(widths) < groups:
        raise ValueError(f"{last} codes have {groups} groups, but there are widths {tuple(widths.shape)}, two in each")
    check_words(words, offsets, fixed_width.slabs_of(last), spare=fixed_width.SPARE)
    forms = Forms(fixed_width.reference_expand, fixed_width.cpu_expand, fixed_width.cuda_expand)
    numbers = (first, last), 0.0 if step is None else check_step(step)
    return run(forms, choose_form(form, words.device), last - first, (widths, words, offsets), *numbers)
