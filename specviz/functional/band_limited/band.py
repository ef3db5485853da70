"""The band: which frequencies stay, by a share of the coefficients or of the energy (Dziedzic et al. 2019)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from spectral_kernels.dispatch import real
from torch import Tensor

if TYPE_CHECKING:
    from specviz.functional.band_limited.plan import Plan


def check_band(compression: float, energy: float | None) -> tuple[float, float | None]:
    """Both as plain numbers. ValueError if one is out of range or both choose the band, TypeError if one is none."""
    numbers = []
    for name, share in (("compression", compression), ("energy", 1.0 if energy is None else energy)):
        try:
            numbers.append(real(share, name))
        except TypeError:
            raise TypeError(f"{name}={share!r} must be a number, the share to leave out or to keep") from None
    left_out, kept = numbers
    if not 0 <= left_out < 1:
        raise ValueError(f"compression={left_out} must lie in [0, 1): it is the share of coefficients left out")
    if energy is None:
        return left_out, None
    if left_out:
        raise ValueError(f"compression={left_out} and energy={kept} both choose the band; give one of them")
    if not 0 < kept <= 1:
        raise ValueError(f"energy={kept} must lie in (0, 1]: it is the share of energy kept")
    return left_out, kept


def band_for_compression(S: int, compression: float, dims: int) -> int:
    """Retained frequencies |f| < k of an axis of transform size S: the official implementation's rule.

    In 2-D each axis keeps the share sqrt(1 - compression) of its half, S//2 + 1 frequencies; in 1-D the highest
    floor(half * compression) + 1 of them are dropped. At least one frequency stays; compression 0 keeps all.
    """
    half = S // 2 + 1
    if compression == 0:
        return half
    if dims == 2:
        return max(1, math.floor(half * math.sqrt(1 - compression)))
    return max(1, half - math.floor(half * compression) - 1)


def band_of_volume(S: int, compression: float) -> int:
    """`band_for_compression` in 3-D, by the same rule: each axis keeps the share cbrt(1 - compression) of its half."""
    return max(1, math.floor((S // 2 + 1) * math.cbrt(1 - compression) + 1e-9))  # cbrt(0.125) falls short of 0.5


def energy_by_band(x: Tensor, plan: Plan) -> tuple[list[tuple[int, int]], Tensor]:
    """Every band (k_h, k_w) that an energy may choose, rising, and the padded map's energy in each: (bands,) float64.

    In two dimensions both axes keep a common fraction of their halves, which runs over j/half of either axis.
    """
    h, w = plan.h, plan.w
    spectrum = torch.fft.rfft2(x.detach(), s=(h.S, w.S), norm="ortho")
    power = (spectrum.real.square() + spectrum.imag.square()).flatten(0, -3).sum(0, dtype=torch.float64)
    power[:, 1 : (w.S + 1) // 2] *= 2
    folded = power[: h.half].clone()
    folded[1 : (h.S + 1) // 2] += power[h.half :].flip(0)
    held = folded.cumsum(0).cumsum(1).cpu()
    bands = energy_bands(plan)
    k_h, k_w = torch.tensor(bands, device=held.device).T
    return bands, held[k_h - 1, k_w - 1]


def energy_bands(plan: Plan) -> list[tuple[int, int]]:
    """Every band that an energy may choose, rising."""
    h, w = plan.h.half, plan.w.half
    if plan.dims == 1:
        return [(1, k) for k in range(1, w + 1)]
    fractions = sorted({j / half for half in (h, w) for j in range(1, half + 1)})
    return [(_share_of(h, f), _share_of(w, f)) for f in fractions]


def _share_of(half: int, fraction: float) -> int:
    return max(1, math.floor(half * fraction + 1e-9))


def band_for_energy(x: Tensor, plan: Plan, energy: float) -> tuple[int, int]:
    """The smallest band (k_h, k_w) that holds this share of the padded map's energy, summed over batch and channels."""
    if energy == 1:
        return plan.h.half, plan.w.half
    bands, held = energy_by_band(x, plan)
    wanted = energy * held[-1].item()
    return next((band for band, share in zip(bands, held.tolist(), strict=True) if share >= wanted), bands[-1])
