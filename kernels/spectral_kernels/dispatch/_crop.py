"""Retained spectra, frequency-major, and the way back, on torch tensors."""

import math

import torch
from torch import Tensor

from spectral_kernels import crop as crop_kernel
from spectral_kernels.dispatch._devices import Form, Forms, need_complex, operator_form, run
from spectral_kernels.dispatch._operators import Along, Call, operator


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
    X: Tensor = torch.ops.spectral_kernels.pad(*flat, *size, *band, operator_form(form, re.device))
    return X.reshape(*leading, *X.shape[1:])


def _planes(X: Tensor, width: int, k_h: int, k_w: int, form: str) -> tuple[Tensor, Tensor]:
    shape = crop_kernel.frequencies(X.shape[1], (k_h, k_w)), X.shape[0]
    real = torch.float32 if X.dtype == torch.complex64 else torch.float64
    return X.new_empty(shape, dtype=real), X.new_empty(shape, dtype=real)


def _padded(call: Call, re: Tensor, im: Tensor) -> Tensor:
    return _pad(re, im, call.shapes[0][1], *call.numbers)


@operator(
    "spectral_kernels::crop",
    shape=_planes,
    transposes={(0,): _padded},
    samples=[Along((0,), (1, 1))],
)
def _crop(X: Tensor, width: int, k_h: int, k_w: int, form: str) -> tuple[Tensor, Tensor]:
    forms = Forms(crop_kernel.reference, crop_kernel.cpu, crop_kernel.cuda)
    work = X.shape[0] * crop_kernel.frequencies(X.shape[1], (k_h, k_w))
    return run(forms, form, work, (X,), width, (k_h, k_w))


def _spectra(re: Tensor, im: Tensor, height: int, width: int, *_: object) -> Tensor:
    kind = torch.complex64 if re.dtype == torch.float32 else torch.complex128
    return re.new_empty((re.shape[1], height, width // 2 + 1), dtype=kind)


@operator(
    "spectral_kernels::pad",
    shape=_spectra,
    transposes={(0, 1): lambda call, grad: _crop(grad, *call.numbers[1:])},
    samples=[Along((1, 1), (0,))],
)
def _pad(re: Tensor, im: Tensor, height: int, width: int, k_h: int, k_w: int, form: str) -> Tensor:
    forms = Forms(crop_kernel.reference_pad, crop_kernel.cpu_pad, crop_kernel.cuda_pad)
    work = re.shape[1] * height * (width // 2 + 1) // 4  # 1 ns each, most of them zeros
    return run(forms, form, work, (re, im), (height, width), (k_h, k_w))
