"""Spectra of maps as a bitmap and codes, and the way back, on torch tensors."""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from spectral_kernels import quantise as kernel
from spectral_kernels.dispatch._devices import A, Form, Forms, choose_form, need_complex, run
from spectral_kernels.symmetry import partners


def quantise_measure(x_hat: Tensor, mirror: np.ndarray, form: Form = "auto") -> tuple[Tensor, Tensor]:
    """What a map's cut and scale are made of: (N, F) complex -> RMS without DC (N,), largest part (N,), both float32.

    mirror (F,) int32 as described in `spectral_kernels.quantise`. Both are NaN where a map's spectrum is not finite.
    """
    form = _check("quantise_measure", x_hat, mirror, form)
    forms = Forms(kernel.reference_measure, kernel.cpu_measure, kernel.cuda_measure)
    return run(forms, form, x_hat.numel(), (x_hat,), mirror)


def quantise(
    x_hat: Tensor,
    mirror: np.ndarray,
    cut: Tensor,
    scale: Tensor,
    eight_bits: bool = True,
    seed: int = -1,
    form: Form = "auto",
) -> tuple[Tensor, Tensor]:
    """Store what exceeds each map's cut: (N, F) complex -> bitmap (N, ceil(F/8)) uint8, codes (K, 2) int8 or float32.

    cut, scale  (N,) float32 each; a scale of 0 stores nothing of its map
    eight_bits  square-root companded int8 codes, else float32
    seed        >= 0 for the unbiased store, -1 for the plain one
    """
    form = _check("quantise", x_hat, mirror, form)
    if any(t.shape != x_hat.shape[:1] or t.dtype != torch.float32 for t in (cut, scale)):
        raise ValueError(f"quantise takes one float32 cut and scale a map, ({len(x_hat)},)")

    def given(run_form: Callable[..., A]) -> Callable[..., A]:
        return lambda x_hat, *rest, **where: run_form(x_hat, mirror, *rest, **where)

    forms = Forms(given(kernel.reference), given(kernel.cpu), given(kernel.cuda))
    return run(forms, form, x_hat.numel(), (x_hat, cut, scale), eight_bits, seed)


def quantise_expand(
    bitmap: Tensor, codes: Tensor, scale: Tensor, dc: Tensor, mirror: np.ndarray, form: Form = "auto"
) -> Tensor:
    """Undo `quantise`: -> (N, F) complex64, zero where nothing was kept; dc (N,) float32 is entry 0 of each map."""
    maps, entries = len(bitmap), mirror.size
    if bitmap.shape != (maps, -(-entries // 8)) or bitmap.dtype != torch.uint8:
        raise ValueError(
            f"spectra of {entries} entries need a uint8 bitmap (N, {-(-entries // 8)}), "
            f"got {tuple(bitmap.shape)} of {bitmap.dtype}"
        )
    forms = Forms(kernel.reference_expand, kernel.cpu_expand, kernel.cuda_expand)
    return run(forms, choose_form(form, codes.device), maps * entries, (bitmap, codes, scale, dc), mirror)


@lru_cache(maxsize=64)
def mirrors(size: tuple[int, ...]) -> np.ndarray:
    """The `mirror` of a half spectrum of maps of this size, (H, W) or (L,): (H * (W//2+1),) int32."""
    mirror = partners(size)
    mirror.setflags(write=False)
    return mirror


def _check(name: str, x_hat: Tensor, mirror: np.ndarray, form: Form) -> Form:
    need_complex(name, x_hat=x_hat)
    if x_hat.ndim != 2 or mirror.shape != x_hat.shape[1:]:
        raise ValueError(f"{name} takes spectra (N, F) and a mirror (F,), got {tuple(x_hat.shape)} and {mirror.shape}")
    return choose_form(form, x_hat.device)
