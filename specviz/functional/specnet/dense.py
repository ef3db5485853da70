"""A SpecNet block in torch's own operations, with every map dense: what torch's tools can look into.

The definition, frequency by frequency, and slower: kernels' spectra stand whole, and autograd keeps dense maps.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import torch
import torch.nn.functional as F
from spectral_kernels.dispatch import constant, constant_result
from torch import Tensor

from specviz.functional.activation import activate_densely
from specviz.functional.precision import no_autocast
from specviz.spectra import HalfSpectrum, Norm

Size = tuple[int, int]


def dense_block(
    X: HalfSpectrum | Tensor,
    weight: Tensor,
    bias: Tensor | None,
    size: Size,
    strides: tuple[int, ...],
    beta: float,
    activation: str | Callable[[Tensor], Tensor],
    norm: Norm,
    bias_factor: float,
    shortcut: HalfSpectrum | None,
) -> HalfSpectrum:
    """As `specnet_block2d`, whose arguments are checked: `size` is the transform's, before the stride."""
    with no_autocast(weight.device.type):
        if not isinstance(X, HalfSpectrum):
            H, W = X.shape[-2:]
            X = HalfSpectrum.of(F.pad(X, (0, size[1] - W, 0, size[0] - H)), norm)
        Y = _product(X.values, weight, size)
        if bias is not None:
            Y = Y + bias[:, None, None] * bias_factor * _first_frequency(Y)
        spectrum = HalfSpectrum(Y, size, norm)
        if strides != (1, 1):
            spectrum = HalfSpectrum.of(_every(strides, spectrum.image()), norm)
        Y = spectrum.values if shortcut is None else spectrum.values + shortcut.values
        out = activate_densely(Y, beta, activation)
        if isinstance(activation, str):
            return HalfSpectrum._exact(out, spectrum.size, norm)
        return HalfSpectrum(out, spectrum.size, norm)  # a function may be odd up to rounding only


def _every(strides: tuple[int, ...], image: Tensor) -> Tensor:
    """Every stride-th pixel. Slices would do, but their sizes are no easy symbols in graphs for all sizes."""
    (H, W), (down, across) = image.shape[-2:], strides
    return image.reshape(*image.shape[:-2], H // down, down, W // across, across)[..., 0, :, 0]


def _product(x_hat: Tensor, weight: Tensor, size: Size) -> Tensor:
    """(B, C, H, W//2+1) times the spectra of (O, C, k_h, k_w): (B, O, H, W//2+1)."""
    taps, weight = weight.shape[2:], weight.to(x_hat.dtype)
    if math.prod(taps) == 1:  # the same at every frequency
        return torch.einsum("bcuv,oc->bouv", x_hat, weight[..., 0, 0])
    (down,) = constant(_waves, size[0], size[0], taps[0], x_hat.dtype, x_hat.device)
    (across,) = constant(_waves, size[1], size[1] // 2 + 1, taps[1], x_hat.dtype, x_hat.device)
    w_hat = torch.einsum("um,ocmn,vn->ocuv", down, weight, across)
    return torch.einsum("bcuv,ocuv->bouv", x_hat, w_hat)


def _waves(n: int, frequencies: int, taps: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor]:
    """exp(-2 pi i f m / n) at every frequency and tap: (frequencies, taps). A longer kernel than n wraps around."""
    f, m = (torch.arange(count, device=device) for count in (frequencies, taps))
    turns = (f[:, None] * m % n).double() / n  # of whole numbers, so exact; n is a tensor in torch.jit.trace
    angle = -2 * math.pi * turns
    return (torch.polar(torch.ones_like(angle), angle).to(dtype),)


def _first_frequency(like: Tensor) -> Tensor:
    """1 at frequency 0: (H, W//2+1)."""
    H, V = like.shape[-2:]
    u, v = torch.arange(H, device=like.device), torch.arange(V, device=like.device)
    return ((u[:, None] == 0) & (v == 0)).to(like.dtype)


@constant_result
def warn_that_nothing_is_sparse() -> bool:
    """When a graph is made, not each time it runs."""
    warnings.warn(
        "torch.compile computes SpecNet's blocks with dense maps: what they keep for the backward pass is not sparse "
        "there. storage='dense' says that this is meant; torch.compiler.disable around a block keeps it sparse.",
        UserWarning,
        stacklevel=2,
    )
    return True
