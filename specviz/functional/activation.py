"""SpecNet's nonlinearity on half spectra (Guan et al., Algorithm 1), keeping a sparse copy for the backward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

import torch
from spectral_kernels import dispatch
from torch import Tensor

from specviz.spectra import HalfSpectrum

Activation = Literal["tanh", "softsign", "arctan", "hardtanh", "identity"]
Precision = Literal["float32", "float16", "bfloat16"]
ACTIVATIONS: tuple[str, ...] = get_args(Activation)
PRECISIONS = {"float32": None, "float16": torch.float16, "bfloat16": torch.bfloat16}


def check_precision(precision: str) -> torch.dtype | None:
    """The type that values are stored as, None for their own; ValueError for a name that is none."""
    if precision not in PRECISIONS:
        raise ValueError(f"precision={precision!r} is unknown; pick one of {', '.join(PRECISIONS)}")
    return PRECISIONS[precision]


def check_activation(activation: str | Callable[[Tensor], Tensor]) -> None:
    """Raise ValueError for an unknown name, or for a function that is not odd, not monotone or not element-wise.

    An odd function f keeps Hermitian symmetry, so that the map stays real: f(-a) = -f(a) for the partner's imaginary
    part. The function is tried at 4001 numbers from -10 to 10 and at a few much smaller and larger ones.
    """
    if isinstance(activation, str):
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation={activation!r} is unknown; pick one of {', '.join(ACTIVATIONS)}")
        return
    with torch.device("cpu"), torch.no_grad():  # also where a network is being built on another device, or on none
        positive = torch.cat([torch.logspace(-6, -3, 7), torch.linspace(0, 10, 2001)[1:], torch.tensor([30.0, 100.0])])
        a = torch.cat([-positive.flip(0), torch.zeros(1), positive]).double()
        f = activation(a)
    name = getattr(activation, "__name__", type(activation).__name__)
    if not isinstance(f, Tensor) or f.shape != a.shape:
        raise ValueError(f"activation {name} must return a tensor of its argument's shape")
    scale = f.abs().clamp_min(1e-12)
    if not bool(f.isfinite().all()):
        raise ValueError(f"activation {name} must be finite from -100 to 100")
    if ((f + f.flip(0)).abs() > 1e-5 * scale).any():
        worst = int((f + f.flip(0)).abs().argmax())
        raise ValueError(
            f"activation {name} is not odd: f({a[worst]:.3g}) = {f[worst]:.3g}, but f({-a[worst]:.3g}) = "
            f"{f.flip(0)[worst]:.3g}. Only an odd function keeps a spectrum Hermitian, and so the map real; "
            f"tanh is one, ReLU and the sigmoid are not."
        )
    if (f.diff() < -1e-5 * scale[1:]).any():
        worst = int(f.diff().argmin())
        raise ValueError(f"activation {name} is not monotone: it falls between {a[worst]:.3g} and {a[worst + 1]:.3g}")


def apply_to_parts(function: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    """f(a) + i f(b) of complex numbers a + ib."""
    return torch.view_as_complex(function(torch.view_as_real(z)))


def slopes(activation: str | Callable[[Tensor], Tensor], kept: Tensor) -> Tensor:
    """Derivatives of real and imaginary part: (K,) complex -> (K, 2) real.

    kept  the activated values, which every named activation's slope follows from; for a function its arguments
    """
    parts = torch.view_as_real(kept)
    if not isinstance(activation, str):
        with torch.enable_grad():
            arguments = parts.detach().requires_grad_()
            (slope,) = torch.autograd.grad(activation(arguments).sum(), arguments)
        return slope
    if activation == "tanh":
        return 1 - parts.square()
    if activation == "softsign":
        return (1 - parts.abs()).square()
    if activation == "arctan":
        return parts.cos().square()
    if activation == "hardtanh":
        return (parts.abs() < 1).to(parts.dtype)
    return torch.ones_like(parts)


def rounded(kept: Tensor, activation: Any, precision: torch.dtype) -> Tensor:
    """Real and imaginary parts in half precision: (K,) complex -> (K, 2)."""
    parts = torch.view_as_real(kept)
    stored = parts.to(precision)
    if activation == "hardtanh":  # whose slope is 0 at 1: what is below must not be rounded there
        below = 1 - torch.finfo(precision).eps / 2
        stored = torch.where(parts.abs() < 1, stored.clamp(-below, below), stored)
    return stored


class _Activate(torch.autograd.Function):
    """Threshold and activate; what is kept for backward is one bit an entry and the activated values that are left."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, beta: float, activation: str, precision: torch.dtype | None) -> Tensor:
        out, bitmap, kept = dispatch.activate(values, beta, activation)
        ctx.activation, ctx.dtype = activation, values.dtype
        ctx.save_for_backward(bitmap, kept if precision is None else rounded(kept, activation, precision))
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
    X: HalfSpectrum, beta: float, activation: Activation = "tanh", *, precision: Precision = "float32"
) -> HalfSpectrum:
    """Zero where |X| <= beta, elsewhere an activation of real and imaginary part: f(a + ib) = f(a) + i f(b).

    X           (..., H, W//2+1) -> the same shape, size and norm; exactly Hermitian, because every f here is odd
    beta        >= 0; what it means depends on X.norm. ValueError otherwise
    activation  "tanh" as in the paper, "softsign", "arctan", "hardtanh" or "identity"
    precision   of the values kept for backward: exact in "float32" (complex128 stays exact), half of the bytes and a
                rounding of the slopes in "float16" and "bfloat16"

    Kept for backward are the bitmap and the K values that are left, ceil(N/8) + 8 K bytes of N coefficients, not the
    dense spectrum: every slope follows from its value. A function of coefficients, not of pixels: it does not commute
    with shifts of the image. Guan et al. (SpecNet), Algorithm 1.
    """
    out = _Activate.apply(X.values, float(beta), activation, check_precision(precision))
    return HalfSpectrum._exact(out, X.size, X.norm)
