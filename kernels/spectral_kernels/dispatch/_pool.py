"""Crop, fold and cut off half spectra, and the transpose, on torch tensors."""

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor

from spectral_kernels import pool as pool_kernel
from spectral_kernels.dispatch._devices import (
    Form,
    fold,
    host_empty,
    need_complex,
    on_gpu,
    operator_form,
    plain,
    threads_for,
)
from spectral_kernels.dispatch._operators import Call, operator


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
    Y = torch.ops.spectral_kernels.pool(flat, width, *size, *band, *nyquist, scale, operator_form(form, X.device))
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
    X = torch.ops.spectral_kernels.unpool(flat, width, *size, *band, *nyquist, scale, operator_form(form, Y.device))
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


@operator("spectral_kernels::pool")
def _pool(
    X: Tensor, W: int, h: int, w: int, b_h: int, b_w: int, g_h: float, g_w: float, scale: float, form: str
) -> Tensor:
    arguments = W, (h, w), (b_h, b_w), (g_h, g_w), scale
    X = plain(X)
    if form == "cuda":
        with torch.cuda.device(X.device):
            return pool_kernel.cuda(X, *arguments, **on_gpu(X.device))
    run = partial(pool_kernel.cpu, empty=host_empty) if form == "cpu" else pool_kernel.reference
    with threads_for(X.shape[0] * h * (w // 2 + 1) // 4):  # 1 ns each
        return torch.from_numpy(run(X.numpy(), *arguments))


@operator("spectral_kernels::unpool")
def _unpool(
    Y: Tensor, w: int, H: int, W: int, b_h: int, b_w: int, g_h: float, g_w: float, scale: float, form: str
) -> Tensor:
    arguments = w, (H, W), (b_h, b_w), (g_h, g_w), scale
    Y = plain(Y)
    if form == "cuda":
        with torch.cuda.device(Y.device):
            return pool_kernel.cuda_unpool(Y, *arguments, **on_gpu(Y.device))
    run = partial(pool_kernel.cpu_unpool, empty=host_empty) if form == "cpu" else pool_kernel.reference_unpool
    with threads_for(Y.shape[0] * H * (W // 2 + 1) // 4):
        return torch.from_numpy(run(Y.numpy(), *arguments))


@_pool.fake
def _(X: Tensor, W: int, h: int, w: int, *rest: Any) -> Tensor:
    return X.new_empty(X.shape[0], h, w // 2 + 1)


@_unpool.fake
def _(Y: Tensor, w: int, H: int, W: int, *rest: Any) -> Tensor:
    return Y.new_empty(Y.shape[0], H, W // 2 + 1)


@_pool.linear
def _(call: Call, grad: Tensor) -> Tensor:
    (shape,), (W, _, w, *rest) = call.shapes, call.numbers
    return _unpool(grad, w, shape[1], W, *rest)


@_unpool.linear
def _(call: Call, grad: Tensor) -> Tensor:
    (shape,), (w, _, W, *rest) = call.shapes, call.numbers
    return _pool(grad, W, shape[1], w, *rest)


def _map(run: Any, info: Any, in_dims: tuple[Any, ...], spectra: Tensor, *numbers: Any) -> tuple[Tensor, int]:
    mapped = run(fold(spectra, in_dims[0], info.batch_size), *numbers)
    return mapped.unflatten(0, (info.batch_size, mapped.shape[0] // info.batch_size)), 0


@_pool.vmap
def _(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> tuple[Tensor, int]:
    return _map(_pool, info, in_dims, *arguments)


@_unpool.vmap
def _(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> tuple[Tensor, int]:
    return _map(_unpool, info, in_dims, *arguments)
