"""SpecNet's nonlinearity on half spectra (Guan et al., Algorithm 1), keeping a sparse copy for the backward pass."""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from spectral_kernels import dispatch
from torch import Tensor

from specviz.spectra import HalfSpectrum

Activation = Literal["tanh", "softsign", "arctan", "hardtanh", "identity"]
ACTIVATIONS: tuple[str, ...] = get_args(Activation)
STORAGES = {"float32": None, "float16": torch.float16, "bfloat16": torch.bfloat16}


def _rounded(kept: Tensor, activation: str, storage: torch.dtype) -> Tensor:
    """Real and imaginary parts in half precision: (K,) complex -> (K, 2)."""
    parts = torch.view_as_real(kept)
    stored = parts.to(storage)
    if activation == "hardtanh":  # whose slope is 0 at 1: what is below must not be rounded there
        below = 1 - torch.finfo(storage).eps / 2
        stored = torch.where(parts.abs() < 1, stored.clamp(-below, below), stored)
    return stored


class _Activate(torch.autograd.Function):
    """Threshold and activate; what is kept for backward is one bit an entry and the activated values that are left."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, beta: float, activation: str, storage: torch.dtype | None) -> Tensor:
        out, bitmap, kept = dispatch.activate(values, beta, activation)
        ctx.activation, ctx.dtype = activation, values.dtype
        ctx.save_for_backward(bitmap, kept if storage is None else _rounded(kept, activation, storage))
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        bitmap, kept = ctx.saved_tensors
        if not kept.is_complex():
            real = torch.float32 if ctx.dtype == torch.complex64 else torch.float64
            kept = torch.view_as_complex(kept.to(real))
        return dispatch.activate_backward(grad, bitmap, kept, ctx.activation), None, None, None


def activate(
    X: HalfSpectrum,
    beta: float,
    activation: Activation = "tanh",
    *,
    storage: Literal["float32", "float16", "bfloat16"] = "float32",
) -> HalfSpectrum:
    """Zero where |X| <= beta, elsewhere an activation of real and imaginary part: f(a + ib) = f(a) + i f(b).

    X           (..., H, W//2+1) -> the same shape, size and norm; exactly Hermitian, because every f here is odd
    beta        >= 0; what it means depends on X.norm. ValueError otherwise
    activation  "tanh" as in the paper, "softsign", "arctan", "hardtanh" or "identity"
    storage     what the kept values are stored as for backward: exact in "float32" (complex128 stays exact), half of
                the bytes and a rounding of the slopes in "float16" and "bfloat16"

    Kept for backward are the bitmap and the K values that are left, ceil(N/8) + 8 K bytes of N coefficients, not the
    dense spectrum: every slope follows from its value. A function of coefficients, not of pixels: it does not commute
    with shifts of the image. Guan et al. (SpecNet), Algorithm 1.
    """
    if storage not in STORAGES:
        raise ValueError(f"storage={storage!r} is unknown; pick one of {', '.join(STORAGES)}")
    out = _Activate.apply(X.values, float(beta), activation, STORAGES[storage])
    return HalfSpectrum._exact(out, X.size, X.norm)
