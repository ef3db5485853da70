"""Filters as the real numbers of their spectra, and back (Rippel et al. 2015, section 3.2).

A k_h x k_w filter has k_h * k_w independent real numbers in its spectrum, as many as it has taps. They are laid out in
a plane of the filter's shape: the bins that must be real as they are; of every other conjugate pair, the real part at
one member and the imaginary part at the other, both times sqrt(2). That map is orthogonal, so gradient descent with
momentum and weight decay takes the same path in both sets of numbers; element-wise optimisers such as Adam do not.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from spectral_kernels.dispatch import constant, whole
from torch import Tensor

from specviz.functional.precision import no_autocast
from specviz.functional.symbolic import one_node
from specviz.functional.tracing import is_channels_last

MAX_TAPS = 4096  # the map is a matrix of taps x taps: 64 MiB in float32


def _matrix(k_h: int, k_w: int, orthogonal: bool, dtype: torch.dtype, device: torch.device) -> tuple[Tensor]:
    """Numbers of the spectrum from taps: (k_h k_w, k_h k_w). Row (u, v) is a cosine, or the sine of its mirror."""
    u, v = torch.arange(k_h, device=device)[:, None], torch.arange(k_w, device=device)[None, :]
    mirror = (-u % k_h) * k_w + (-v % k_w)
    place = u * k_w + v
    # Of a pair, the member with the smaller column comes first; in a column that is its own mirror, the smaller row.
    order, mirror_order = v * k_h + u, (-v % k_w) * k_h + (-u % k_h)
    first, own = order < mirror_order, place == mirror
    turns_down = (torch.outer(u.flatten(), u.flatten()) % k_h).double() / k_h
    turns_across = (torch.outer(v.flatten(), v.flatten()) % k_w).double() / k_w
    angle = 2 * math.pi * (turns_down[:, None, :, None] + turns_across[None, :, None, :]).reshape(k_h * k_w, -1)
    # At the second member stands the first one's imaginary part, -sum w sin(-angle).
    waves = torch.where((first | own).reshape(-1, 1), angle.cos(), angle.sin())
    factor = waves.new_tensor(math.sqrt(2) if orthogonal else 1.0).where(~own.reshape(-1, 1), 1.0)
    return ((waves * factor / math.sqrt(k_h * k_w)).to(dtype),)


def _inverse(k_h: int, k_w: int, orthogonal: bool, dtype: torch.dtype, device: torch.device) -> tuple[Tensor]:
    (matrix,) = _matrix(k_h, k_w, orthogonal, torch.float64, device)
    return ((matrix.mT / matrix.square().sum(1)).to(dtype),)  # rows are orthogonal in either case


def _map(make: Any, x: Tensor, orthogonal: bool, dims: int) -> Tensor:
    if whole(dims, "dims", 1) > 2:
        raise ValueError(f"dims={dims!r} must be 1 for filters (..., k), or 2 for (..., k_h, k_w)")
    if not x.is_floating_point():
        raise TypeError(f"filters and their spectral numbers are real floating point, not {x.dtype}")
    if x.ndim < dims or 0 in x.shape[-dims:]:
        raise ValueError(
            f"filters end in {'(k_h, k_w)' if dims == 2 else '(k,)'} of at least one tap, got {tuple(x.shape)}"
        )
    k_h, k_w = x.shape[-2:] if dims == 2 else (1, x.shape[-1])
    if k_h * k_w > MAX_TAPS:
        raise ValueError(
            f"a filter of {k_h} x {k_w} has more than {MAX_TAPS} taps; filters as large as the map are "
            'snn.ParametricSpectralConv2d(kind="full")'
        )
    working = torch.promote_types(x.dtype, torch.float32)  # half precision is rounded to once, at the end
    (matrix,) = constant(make, k_h, k_w, orthogonal, working, x.device)
    with no_autocast(x.device.type):
        numbers = x.reshape(*x.shape[: x.ndim - dims], -1).to(working) @ matrix.mT
    numbers = numbers.reshape(x.shape).to(x.dtype)
    return numbers.contiguous(memory_format=torch.channels_last) if is_channels_last(x) else numbers


@one_node
def spectral_parameters(weight: Tensor, *, orthogonal: bool = True, dims: int = 2) -> Tensor:
    """The independent real numbers of filters' spectra: (..., k_h, k_w) -> the same shape, as the module lays them out.

    orthogonal  True multiplies bins that have a partner by sqrt(2), so that the sum of squares stays. False leaves the
                factor out, and a replication of the paper trains these: pairs then learn twice as fast as real bins
    dims        2, or 1 for filters (..., k)

    >>> w = torch.rand(8, 3, 5, 5)
    >>> w_hat = SF.spectral_parameters(w)
    >>> w_hat.shape
    torch.Size([8, 3, 5, 5])
    >>> torch.allclose(w_hat.square().sum(), w.square().sum())
    True
    """
    return _map(_matrix, weight, orthogonal, dims)


@one_node
def filters_from_parameters(weight_hat: Tensor, *, orthogonal: bool = True, dims: int = 2) -> Tensor:
    """The inverse of `spectral_parameters`: (..., k_h, k_w) numbers of spectra -> filters of the same shape.

    >>> w = torch.rand(8, 3, 5, 5)
    >>> torch.allclose(SF.filters_from_parameters(SF.spectral_parameters(w)), w, atol=1e-6)
    True
    """
    return _map(_inverse, weight_hat, orthogonal, dims)
