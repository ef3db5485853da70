"""Crop, fold and cut off half spectra, and the transpose, on torch tensors."""

import math
from typing import Any

import torch
from torch import Tensor

from spectral_kernels import pool as pool_kernel
from spectral_kernels.dispatch._devices import Form, Forms, need_complex, operator_form, run
from spectral_kernels.dispatch._operators import Along, Call, operator


def pool(
    X: Tensor,
    width: int,
    size: tuple[int, int],
    band: tuple[int, int] | None = None,
    nyquist: tuple[float, float] = (1.0, 1.0),
    scale: float = 1.0,
    form: Form = "auto",
) -> Tensor:
    """Half spectra of smaller maps: (..., H, W//2+1) complex, W = width, size (h, w) -> (..., h, w//2+1).

    band     keeps |u| <= band[0] and v <= band[1] of the result; None keeps all
    nyquist  what the two Nyquist lines that fall on each other are multiplied by, down and across

    Exactly Hermitian, differentiable; `unpool` is its transpose. See `spectral_kernels.pool`.
    """
    need_complex("pool", X=X)
    _check_ends("X", X, width)
    _check_shrinks(size, (X.shape[-2], width))
    band = _check_band((size[0], size[1]) if band is None else band)
    flat = X.reshape(math.prod(X.shape[:-2]), *X.shape[-2:])
    Y: Tensor = torch.ops.spectral_kernels.pool(
        flat, width, *size, *band, *nyquist, scale, operator_form(form, X.device)
    )
    return Y.reshape(*X.shape[:-2], *Y.shape[1:])


def unpool(
    Y: Tensor,
    width: int,
    size: tuple[int, int],
    band: tuple[int, int] | None = None,
    nyquist: tuple[float, float] = (1.0, 1.0),
    scale: float = 1.0,
    form: Form = "auto",
) -> Tensor:
    """Transpose of `pool`: (..., h, w//2+1) complex, w = width, size (H, W) -> (..., H, W//2+1), zero elsewhere."""
    need_complex("unpool", Y=Y)
    _check_ends("Y", Y, width)
    _check_shrinks((Y.shape[-2], width), size)
    band = _check_band((Y.shape[-2], width) if band is None else band)
    flat = Y.reshape(math.prod(Y.shape[:-2]), *Y.shape[-2:])
    X: Tensor = torch.ops.spectral_kernels.unpool(
        flat, width, *size, *band, *nyquist, scale, operator_form(form, Y.device)
    )
    return X.reshape(*Y.shape[:-2], *X.shape[1:])


def _check_band(band: tuple[int, int]) -> tuple[int, int]:
    if min(band) < 0:
        raise ValueError(f"band={tuple(band)} must be >= 0: the highest frequencies that stay; 0 is the mean")
    return band


def _check_ends(name: str, spectra: Tensor, width: int) -> None:
    if spectra.ndim < 2 or width < 1 or spectra.shape[-1] != width // 2 + 1 or spectra.shape[-2] < 1:
        raise ValueError(
            f"{name} {tuple(spectra.shape)} is no half spectrum of maps {width} pixels wide: "
            f"it would end in {max(width, 1) // 2 + 1}"
        )


def _check_shrinks(small: tuple[int, int], large: tuple[int, int]) -> None:
    if not all(1 <= s <= n for s, n in zip(small, large, strict=True)):
        raise ValueError(
            f"pool and unpool go between a larger and a smaller size: {tuple(small)} must be at least (1, 1) "
            f"and at most {tuple(large)}"
        )


def _shape(spectra: Tensor, width: int, height: int, new_width: int, *_: Any) -> Tensor:
    return spectra.new_empty(spectra.shape[0], height, new_width // 2 + 1)


def _numbers_back(call: Call) -> tuple[Any, ...]:
    """The other operator's, for the way back: it starts at the new width and ends at the old size."""
    width, _, new_width, *rest = call.numbers
    return new_width, call.shapes[0][1], width, *rest


def _work(spectra: Tensor, height: int, width: int) -> int:
    return spectra.shape[0] * height * (width // 2 + 1) // 4  # 1 ns each


def _unpooled(call: Call, grad: Tensor) -> Tensor:
    return _unpool(grad, *_numbers_back(call))


@operator(
    "spectral_kernels::pool",
    shape=_shape,
    transposes={(0,): _unpooled},
    samples=[Along((0,), (0,))],
)
def _pool(
    X: Tensor, W: int, h: int, w: int, b_h: int, b_w: int, g_h: float, g_w: float, scale: float, form: str
) -> Tensor:
    forms = Forms(pool_kernel.reference, pool_kernel.cpu, pool_kernel.cuda)
    return run(forms, form, _work(X, h, w), (X,), W, (h, w), (b_h, b_w), (g_h, g_w), scale)


@operator(
    "spectral_kernels::unpool",
    shape=_shape,
    transposes={(0,): lambda call, grad: _pool(grad, *_numbers_back(call))},
    samples=[Along((0,), (0,))],
)
def _unpool(
    Y: Tensor, w: int, H: int, W: int, b_h: int, b_w: int, g_h: float, g_w: float, scale: float, form: str
) -> Tensor:
    forms = Forms(pool_kernel.reference_unpool, pool_kernel.cpu_unpool, pool_kernel.cuda_unpool)
    return run(forms, form, _work(Y, H, W), (Y,), w, (H, W), (b_h, b_w), (g_h, g_w), scale)
