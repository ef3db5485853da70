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


def _matrix(sides: tuple[int, ...], orthogonal: bool, dtype: torch.dtype, device: torch.device) -> tuple[Tensor]:
    """Numbers of the spectrum from taps: (taps, taps). A row is a cosine, or the sine of its partner."""
    dims, order, mirror_order = len(sides), torch.tensor(0, device=device), torch.tensor(0, device=device)
    turns = torch.zeros((1,) * 2 * dims, dtype=torch.float64, device=device)
    for axis, k in enumerate(sides):
        f = torch.arange(k, device=device)
        along = [k if a == axis else 1 for a in range(dims)]
        # Of a pair, the member with the smaller column comes first; in a self-conjugate column, with the smaller row.
        stride = math.prod(sides[:axis])
        order, mirror_order = order + stride * f.reshape(along), mirror_order + stride * (-f % k).reshape(along)
        turns = turns + ((torch.outer(f, f) % k).double() / k).reshape(along + along)
    first, own = order < mirror_order, order == mirror_order
    taps = math.prod(sides)
    angle = 2 * math.pi * turns.reshape(taps, taps)
    # At the second member stands the first one's imaginary part, -sum w sin(-angle).
    waves = torch.where((first | own).reshape(-1, 1), angle.cos(), angle.sin())
    factor = waves.new_tensor(math.sqrt(2) if orthogonal else 1.0).where(~own.reshape(-1, 1), 1.0)
    return ((waves * factor / math.sqrt(taps)).to(dtype),)


def _inverse(sides: tuple[int, ...], orthogonal: bool, dtype: torch.dtype, device: torch.device) -> tuple[Tensor]:
    (matrix,) = _matrix(sides, orthogonal, torch.float64, device)
    return ((matrix.mT / matrix.square().sum(1)).to(dtype),)  # rows are orthogonal in either case


_SHAPES = {1: "(k,)", 2: "(k_h, k_w)", 3: "(k_d, k_h, k_w)"}


def _map(make: Any, x: Tensor, orthogonal: bool, dims: int) -> Tensor:
    if whole(dims, "dims", 1) > 3:
        raise ValueError(
            f"dims={dims!r} must be 1 for filters (..., k), 2 for (..., k_h, k_w), or 3 for (..., k_d, k_h, k_w)"
        )
    if not x.is_floating_point():
        raise TypeError(f"filters and their spectral numbers are real floating point, not {x.dtype}")
    if x.ndim < dims or 0 in x.shape[-dims:]:
        raise ValueError(f"filters end in {_SHAPES[dims]} of at least one tap, got {tuple(x.shape)}")
    sides = tuple(x.shape[-dims:])
    if math.prod(sides) > MAX_TAPS:
        raise ValueError(
            f"a filter of {' x '.join(map(str, sides))} has more than {MAX_TAPS} taps; filters as large as the map are "
            'snn.ParametricSpectralConv2d(kind="full")'
        )
    working = torch.promote_types(x.dtype, torch.float32)  # half precision is rounded to once, at the end
    (matrix,) = constant(make, sides, orthogonal, working, x.device)
    with no_autocast(x.device.type):
        numbers = x.reshape(*x.shape[: x.ndim - dims], -1).to(working) @ matrix.mT
    numbers = numbers.reshape(x.shape).to(x.dtype)
    return numbers.contiguous(memory_format=torch.channels_last) if is_channels_last(x) else numbers


@one_node
def spectral_parameters(weight: Tensor, *, orthogonal: bool = True, dims: int = 2) -> Tensor:
    """The independent real numbers of filters' spectra: (..., k_h, k_w) -> the same shape, as the module lays them out.

    orthogonal  True multiplies bins that have a partner by sqrt(2), so that the sum of squares stays. False leaves the
                factor out, as a replication of the paper does; under plain gradient descent pairs then learn twice as
                fast as real bins
    dims        2, or 1 for filters (..., k), 3 for (..., k_d, k_h, k_w)

    Raises ValueError for filters of more than 4096 taps.

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
