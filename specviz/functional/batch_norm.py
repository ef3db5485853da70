"""Batch norm of maps, computed on their half spectra."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from specviz.functional.symbolic import one_node
from specviz.spectra import HalfSpectrum


@one_node
def spectral_batch_norm2d(
    X: HalfSpectrum,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> HalfSpectrum:
    """`F.batch_norm` of the images of half spectra, without going back to pixels: the same numbers, but for rounding.

    X (B, C, H, W//2+1) -> the same shape, size and norm; the other arguments are those of `F.batch_norm`, (C,) each

    A map's mean is its coefficient of frequency 0, and by Parseval's theorem its variance is the energy of all others.
    So batch norm multiplies all coefficients of a channel by one number and adds another to DC.

    Raises ValueError for a batch of one pixel a channel in training, as torch does, and outside training where
    running_mean or running_var is None. SpecNet's paper gives up batch norm, because it knows none in the Fourier
    domain; this one is ours.

    >>> X = sv.HalfSpectrum.of(torch.randn(8, 3, 16, 16))
    >>> Y = SF.spectral_batch_norm2d(X, None, None, training=True)
    >>> expected = torch.nn.functional.batch_norm(X.image(), None, None, training=True)
    >>> torch.allclose(Y.image(), expected, atol=1e-5)
    True
    """
    values, pixels = X.values, math.prod(X.size)
    _check(X, running_mean, running_var, training)
    to_mean = {"ortho": pixels**-0.5, "backward": 1 / pixels, "forward": 1.0}[X.norm]  # of the first coefficient
    first = values[..., 0, 0].real * to_mean
    if training:
        mean = first.mean(0)
        # All but frequency 0, whose share is the maps' own means' variance: no difference of large numbers.
        waves = X._energy_density().flatten(-2)[..., 1:].sum(-1) / pixels
        var = waves.mean(0) + (first - mean).square().mean(0)
        _keep_track(running_mean, mean, momentum)
        if running_var is not None:
            count = len(values) * pixels
            _keep_track(running_var, var * (count / (count - 1)), momentum)
    else:
        assert running_mean is not None
        assert running_var is not None
        mean, var = running_mean, running_var
    scale = (var + eps).rsqrt() * (1.0 if weight is None else weight)
    shift = (0.0 if bias is None else bias) - mean * scale
    out = values * scale[:, None, None]
    moved = torch.zeros(X.shape[-2:], dtype=out.real.dtype, device=out.device)
    moved[0, 0] = 1 / to_mean
    return HalfSpectrum._exact(out + shift[:, None, None] * moved, X.size, X.norm)


def _check(X: HalfSpectrum, running_mean: Tensor | None, running_var: Tensor | None, training: bool) -> None:
    if X.values.dim() != 4:
        raise ValueError(f"half spectra of maps (B, C, H, W) are expected, and these have shape {tuple(X.shape)}")
    if training:
        if math.prod(X.size) == 1 and len(X.values) == 1:  # in this order, which an export of any batch size can follow
            raise ValueError("in training batch norm needs more than one number a channel, and a single pixel is one")
    elif running_mean is None or running_var is None:
        raise ValueError(
            "outside training batch norm needs running_mean and running_var; training=True takes the batch's own"
        )


@torch.no_grad()
def _keep_track(running: Tensor | None, value: Tensor, momentum: float) -> None:
    if running is not None:
        running.lerp_(value.detach().to(running.dtype), momentum)
