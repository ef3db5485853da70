"""Retained spectra, frequency-major, and the way back, on torch tensors."""

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor

from spectral_kernels import crop as crop_kernel
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


def _check_band(size: tuple[int, int], band: tuple[int, int]) -> None:
    for axis, n, k in zip(("down", "across"), size, band, strict=True):
        if not 1 <= k <= n // 2 + 1:
            raise ValueError(
                f"band={tuple(band)} does not fit {size[0]} x {size[1]} pixels: {axis} there are "
                f"{n // 2 + 1} frequencies, so k must lie between 1 and {n // 2 + 1}"
            )


def crop(X: Tensor, width: int, band: tuple[int, int], form: Form = "auto") -> tuple[Tensor, Tensor]:
    """Keep low frequencies, frequency-major: (..., H, width//2+1) complex -> real and imaginary part, (F, ...) each.

    band (k_h, k_w) keeps |u| < k_h and v < k_w; what comes out is exactly Hermitian, ordered as
    `spectral_kernels.crop` says. Differentiable; `pad` is its transpose.
    """
    need_complex("crop", X=X)
    if X.ndim < 2 or X.shape[-1] != width // 2 + 1:
        raise ValueError(
            f"X {tuple(X.shape)} is no half spectrum of maps {width} pixels wide: it would end in {width // 2 + 1}"
        )
    _check_band((X.shape[-2], width), band)
    leading = X.shape[:-2]
    flat = X.reshape(math.prod(leading), *X.shape[-2:])
    re, im = torch.ops.spectral_kernels.crop(flat, width, *band, operator_form(form, X.device))
    return re.reshape(re.shape[0], *leading), im.reshape(im.shape[0], *leading)


def pad(re: Tensor, im: Tensor, size: tuple[int, int], band: tuple[int, int], form: Form = "auto") -> Tensor:
    """Transpose of `crop`: real and imaginary part, (F, ...) each -> (..., H, W//2+1) complex, zero outside the band.

    Of a Hermitian spectrum it is the inverse too: crop(pad(x)) == x, and irfft2 of it is the band-limited map.
    """
    if re.shape != im.shape or re.dtype != im.dtype or re.dtype not in (torch.float32, torch.float64):
        raise TypeError(
            f"pad takes two float32 or float64 planes of one shape, got {re.dtype} {tuple(re.shape)} "
            f"and {im.dtype} {tuple(im.shape)}"
        )
    _check_band(size, band)
    F = crop_kernel.frequencies(size[0], band)
    if re.ndim < 1 or re.shape[0] != F:
        raise ValueError(f"band={tuple(band)} of {size[0]} x {size[1]} has {F} frequencies, got {tuple(re.shape)}")
    leading = re.shape[1:]
    flat = (part.reshape(F, math.prod(leading)) for part in (re, im))
    X = torch.ops.spectral_kernels.pad(*flat, *size, *band, operator_form(form, re.device))
    return X.reshape(*leading, *X.shape[1:])


@operator("spectral_kernels::crop")
def _crop(X: Tensor, width: int, k_h: int, k_w: int, form: str) -> tuple[Tensor, Tensor]:
    X = plain(X)
    if form == "cuda":
        with torch.cuda.device(X.device):
            return crop_kernel.cuda(X, width, (k_h, k_w), **on_gpu(X.device))
    run = partial(crop_kernel.cpu, empty=host_empty) if form == "cpu" else crop_kernel.reference
    with threads_for(X.shape[0] * crop_kernel.frequencies(X.shape[1], (k_h, k_w))):
        re, im = run(X.numpy(), width, (k_h, k_w))
    return torch.from_numpy(re), torch.from_numpy(im)


@operator("spectral_kernels::pad")
def _pad(re: Tensor, im: Tensor, height: int, width: int, k_h: int, k_w: int, form: str) -> Tensor:
    re, im = plain(re), plain(im)
    size, band = (height, width), (k_h, k_w)
    if form == "cuda":
        with torch.cuda.device(re.device):
            return crop_kernel.cuda_pad(re, im, size, band, **on_gpu(re.device))
    run = partial(crop_kernel.cpu_pad, empty=host_empty) if form == "cpu" else crop_kernel.reference_pad
    with threads_for(re.shape[1] * height * (width // 2 + 1) // 4):  # 1 ns each, most of them zeros
        return torch.from_numpy(run(re.numpy(), im.numpy(), size, band))


@_crop.fake
def _(X: Tensor, width: int, k_h: int, k_w: int, form: str) -> tuple[Tensor, Tensor]:
    shape = crop_kernel.frequencies(X.shape[1], (k_h, k_w)), X.shape[0]
    real = torch.float32 if X.dtype == torch.complex64 else torch.float64
    return X.new_empty(shape, dtype=real), X.new_empty(shape, dtype=real)


@_pad.fake
def _(re: Tensor, im: Tensor, height: int, width: int, k_h: int, k_w: int, form: str) -> Tensor:
    kind = torch.complex64 if re.dtype == torch.float32 else torch.complex128
    return re.new_empty((re.shape[1], height, width // 2 + 1), dtype=kind)


@_crop.linear
def _(call: Call, grad_re: Tensor, grad_im: Tensor) -> Tensor:
    (shape,) = call.shapes
    return _pad(grad_re, grad_im, shape[1], *call.numbers)


@_pad.linear
def _(call: Call, grad: Tensor) -> tuple[Tensor, Tensor]:
    _, *numbers = call.numbers
    return _crop(grad, *numbers)


@_crop.vmap
def _(info: Any, in_dims: tuple[Any, ...], X: Tensor, *rest: Any) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
    re, im = _crop(fold(X, in_dims[0], info.batch_size), *rest)
    split = (info.batch_size, re.shape[1] // info.batch_size)
    return (re.unflatten(1, split), im.unflatten(1, split)), (1, 1)


@_pad.vmap
def _(info: Any, in_dims: tuple[Any, ...], re: Tensor, im: Tensor, *rest: Any) -> tuple[Tensor, int]:
    parts = [
        (part.expand(info.batch_size, *part.shape) if dim is None else part.movedim(dim, 0)).movedim(0, 1).flatten(1, 2)
        for part, dim in zip((re, im), in_dims[:2], strict=True)
    ]
    X = _pad(*parts, *rest)
    return X.unflatten(0, (info.batch_size, X.shape[0] // info.batch_size)), 0
