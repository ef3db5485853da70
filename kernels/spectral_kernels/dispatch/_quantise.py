"""Spectra of maps as a bitmap and codes, and the way back, on torch tensors."""

from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spectral_kernels import quantise as kernel
from spectral_kernels.dispatch._devices import (
    Form,
    choose_form,
    host_empty,
    need_complex,
    on_gpu,
    plain,
    threads_for,
)


def quantise_measure(x_hat: Tensor, mirror: np.ndarray, form: Form = "auto") -> tuple[Tensor, Tensor]:
    """What a map's cut and scale are made of: (N, F) complex -> RMS without DC (N,), largest part (N,), both float32.

    mirror (F,) int32 as described in `spectral_kernels.quantise`. Both are NaN where a map's spectrum is not finite.
    """
    form = _check("quantise_measure", x_hat, mirror, form)
    x_hat = plain(x_hat)
    if form == "cuda":
        with torch.cuda.device(x_hat.device):
            return kernel.cuda_measure(x_hat, mirror, **_on_gpu(x_hat.device))
    run = partial(kernel.cpu_measure, empty=host_empty) if form == "cpu" else kernel.reference_measure
    with threads_for(x_hat.numel()):
        rms, largest = run(x_hat.numpy(), mirror)
    return torch.from_numpy(rms), torch.from_numpy(largest)


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
    x_hat, cut, scale = plain(x_hat), plain(cut), plain(scale)
    if form == "cuda":
        with torch.cuda.device(x_hat.device):
            return kernel.cuda(x_hat, mirror, cut, scale, eight_bits, seed, **_on_gpu(x_hat.device))
    run: Any = partial(kernel.cpu, empty=host_empty) if form == "cpu" else kernel.reference
    with threads_for(x_hat.numel()):
        bitmap, codes = run(x_hat.numpy(), mirror, cut.numpy(), scale.numpy(), eight_bits, seed)
    return torch.from_numpy(bitmap), torch.from_numpy(codes)


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
    form = choose_form(form, codes.device)
    bitmap, codes, scale, dc = bitmap.contiguous(), plain(codes), plain(scale), plain(dc)
    if form == "cuda":
        with torch.cuda.device(codes.device):
            return kernel.cuda_expand(bitmap, codes, scale, dc, mirror, **_on_gpu(codes.device))
    run = partial(kernel.cpu_expand, empty=host_empty) if form == "cpu" else kernel.reference_expand
    with threads_for(maps * entries):
        return torch.from_numpy(run(bitmap.numpy(), codes.numpy(), scale.numpy(), dc.numpy(), mirror))


@lru_cache(maxsize=64)
def mirrors(size: tuple[int, ...]) -> np.ndarray:
    """The `mirror` of a half spectrum of maps of this size, (H, W) or (L,): (H * (W//2+1),) int32."""
    *rows, width = size
    height = rows[0] if rows else 1
    row, column = np.indices((height, width // 2 + 1))
    inside = (column * 2 % width == 0) if width else column == 0  # the columns that are their own partners
    mirror = np.where(inside, -row % max(height, 1) * (width // 2 + 1) + column, -1).astype(np.int32).reshape(-1)
    mirror.setflags(write=False)
    return mirror


def _check(name: str, x_hat: Tensor, mirror: np.ndarray, form: Form) -> Form:
    need_complex(name, x_hat=x_hat)
    if x_hat.ndim != 2 or mirror.shape != x_hat.shape[1:]:
        raise ValueError(f"{name} takes spectra (N, F) and a mirror (F,), got {tuple(x_hat.shape)} and {mirror.shape}")
    return choose_form(form, x_hat.device)


def _on_gpu(device: torch.device) -> dict[str, Any]:
    return {**on_gpu(device), "put": lambda array: torch.tensor(array, device=device)}
