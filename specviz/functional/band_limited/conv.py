"""Convolution that leaves out high frequencies, computing only the ones it keeps (Dziedzic et al. 2019).

The definition. Pad the map (zeros), and per axis let S be the smallest 2*3*5*7-smooth integer that holds it.
Correlate circularly at S, with both spectra multiplied by the band's mask; keep the outputs that an unpadded
linear correlation would have, every stride-th. The backward pass is the exact transpose.

Four algorithms give that result. "gemm" transforms with matrices that hold the retained frequencies' cosines and
sines and nothing else, and evaluates the inverse at the outputs only; "fft" transforms whole and crops; "lowpass"
band-limits the map alone and applies torch's own convolution to it, because a frequency that is missing in one factor
is missing in the product; "direct" is torch's own convolution, the same function where nothing is left out.

Shape letters: B batch, C channels in, O channels out, G groups, H W pixels, F retained frequencies.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, wraps
from typing import Any, ParamSpec, TypeVar

import torch
from spectral_kernels.dispatch import one_of, whole, wholes
from torch import Tensor

from specviz.functional.band_limited.band import check_band
from specviz.functional.band_limited.choice import ALGORITHMS, Algorithm
from specviz.functional.band_limited.routes import Settings, convolve_maps
from specviz.functional.precision import no_autocast, working_dtypes
from specviz.functional.symbolic import one_node
from specviz.functional.tracing import is_channels_last, shape_of

P = ParamSpec("P")
R = TypeVar("R")


def check_tensors(x: Tensor, weight: Tensor, bias: Tensor | None, groups: int, dims: int) -> None:
    name, sides, filters = f"band_limited_conv{dims}d", shape_of(x), shape_of(weight)
    if x.ndim not in (dims + 1, dims + 2) or weight.ndim != dims + 2:
        raise ValueError(
            f"{name} takes x of {dims + 2} dimensions (or {dims + 1} without a batch) and weight of {dims + 2}, "
            f"got {tuple(sides)} and {tuple(filters)}"
        )
    for argument, tensor in (("x", x), ("weight", weight)):
        if not tensor.is_floating_point():
            raise TypeError(f"{name} takes real floating-point tensors; {argument} is {tensor.dtype}: use .float()")
    if filters[0] % groups:
        raise ValueError(f"groups={groups} must divide the {filters[0]} output channels")
    if sides[-dims - 1] != filters[1] * groups:
        raise ValueError(
            f"x has {sides[-dims - 1]} channels, but weight {tuple(filters)} with groups={groups} "
            f"takes {filters[1] * groups}"
        )
    if bias is not None and tuple(shape_of(bias)) != (filters[0],):
        raise ValueError(
            f"bias has shape {tuple(shape_of(bias))}; it must have one number for each output, {filters[0]}"
        )
    if bias is not None and not bias.is_floating_point():
        raise TypeError(f"{name} takes real floating-point tensors; bias is {bias.dtype}")
    if 0 in sides[-dims:] or 0 in filters:
        raise ValueError(f"nothing to convolve: x {tuple(sides)}, weight {tuple(filters)}")


def same_padding(taps: int, dilation: int) -> tuple[int, int]:
    """Zeros before and after an axis that keep its size at stride 1; if uneven, one more goes after, as in torch."""
    total = dilation * (taps - 1)
    return total // 2, total - total // 2


_PLAIN = (int, float, bool, str, type(None))


def _are_plain(values: Sequence[Any]) -> bool:
    """Whether the values may be a cache's key: immutable ones, and in tuples ints alone (there True would equal 1)."""
    for value in values:
        if type(value) is tuple:
            for each in value:
                if type(each) is not int:
                    return False
        elif type(value) not in _PLAIN:
            return False
    return True


def _once(function: Callable[P, R]) -> Callable[P, R]:
    """Cache a function: it runs once for each combination of plain values."""
    kept = lru_cache(maxsize=1024, typed=True)(function)

    @wraps(function)
    def call(*values: P.args, **keywords: P.kwargs) -> R:
        if torch.compiler.is_compiling() or keywords or not _are_plain(values):
            return function(*values, **keywords)
        return kept(*values)

    return call


@_once
def settings_of(
    dims: int,
    taps: Sequence[int],
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
    circular: bool,
    compression: float,
    energy: float | None,
    algorithm: Algorithm,
) -> Settings:
    """A caller's options, checked. Cached, since the checks take as long as a small convolution."""
    compression, energy = check_band(compression, energy)
    one_of(algorithm, "algorithm", ALGORITHMS)
    strides, dilations = wholes(stride, dims, "stride", 1), wholes(dilation, dims, "dilation", 1)
    pads = _pads(padding, taps, strides, dilations)
    return Settings(strides, pads, dilations, groups, circular, compression, energy, algorithm)


def _pads(padding: Any, taps: Sequence[int], strides: Sequence[int], dilations: Sequence[int]) -> Any:
    """Pixels before and after each axis."""
    if not isinstance(padding, str):
        return tuple((p, p) for p in wholes(padding, len(strides), "padding", 0))
    if padding not in ("same", "valid"):
        raise ValueError(f'padding={padding!r} is unknown; pick "same", "valid" or numbers')
    if padding == "valid":
        return ((0, 0),) * len(strides)
    if any(s != 1 for s in strides):
        stride = strides[0] if len(set(strides)) == 1 else strides
        raise ValueError(f'padding="same" keeps the size, so it needs stride 1, not {stride}')
    return tuple(same_padding(t, d) for t, d in zip(taps, dilations, strict=True))


def convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: int | Sequence[int],
    padding: str | int | Sequence[int],
    dilation: int | Sequence[int],
    groups: int,
    *,
    compression: float,
    energy: float | None,
    algorithm: Algorithm,
    dims: int,
    circular: bool = False,
) -> tuple[Tensor, Any, Any]:
    """What the layers call: the outputs, the `Plan` that was followed and the algorithm that ran.

    The plan is None where it is not known yet: in a graph for many sizes, or one whose band the data will decide. So is
    the algorithm, unless torch's own convolution runs.
    """
    groups = whole(groups, "groups", 1)
    check_tensors(x, weight, bias, groups, dims)
    asked = stride, padding, dilation, groups, circular, compression, energy, algorithm
    settings = settings_of(dims, tuple(shape_of(weight)[2:]), *asked)
    working, result = working_dtypes(x, weight, bias)
    maps, taps = (x if x.ndim == dims + 2 else x[None]), weight
    if dims == 1:
        maps, taps = maps.unsqueeze(-2), taps.unsqueeze(-2)
    with no_autocast(x.device.type):
        shift = None if bias is None else bias.to(working)
        y, plan, ran = convolve_maps(maps.to(working), taps.to(working), shift, settings)
    if dims == 2 and (is_channels_last(maps) or is_channels_last(taps)):  # as torch's convolution does
        y = y.contiguous(memory_format=torch.channels_last)
    y = y.squeeze(-2) if dims == 1 else y
    return (y if x.ndim == dims + 2 else y[0]).to(result), plan, ran


@one_node
def band_limited_conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: str | int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    *,
    compression: float = 0.0,
    energy: float | None = None,
    algorithm: Algorithm = "auto",
) -> Tensor:
    """Convolve maps without the high frequencies of maps and filters: torch's `conv2d` with a band.

    x            (B, C, H, W) or (C, H, W) real; weight (O, C/groups, k_h, k_w) -> (B, O, H', W') as conv2d
    compression  share of the coefficients that the band discards, in [0, 1); at 0 it is the ordinary convolution
    energy       instead: keep the smallest band that holds this share of the map's energy, in (0, 1]
    algorithm    "auto", "gemm", "fft", "lowpass" or "direct" (compression 0 only); the same result beyond rounding

    Autograd saves the map's retained coefficients and the taps. It saves the map with "direct", which "auto" often
    chooses at compression 0, and in a graph that is compiled for many sizes or in energy mode. An exported program
    consists of matrix products ("gemm") or torch's own convolution. With "fft" or "lowpass", or for many sizes, it
    needs this package where it runs. ONNX does not know this package's operator, so ONNX for many sizes raises
    ValueError. Dziedzic et al. (2019). Their code pads to a power of two; we pad to the next fast size, so the plane is
    smaller. The band follows the same rule.

    >>> x, weight = torch.rand(2, 3, 32, 32), torch.rand(8, 3, 5, 5)
    >>> SF.band_limited_conv2d(x, weight, padding=2, compression=0.5).shape
    torch.Size([2, 8, 32, 32])
    """
    y, _, _ = convolve(
        x, weight, bias, stride, padding, dilation, groups,
        compression=compression, energy=energy, algorithm=algorithm, dims=2,
    )  # fmt: skip
    return y


@one_node
def band_limited_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: str | int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    *,
    compression: float = 0.0,
    energy: float | None = None,
    algorithm: Algorithm = "auto",
) -> Tensor:
    """`band_limited_conv2d` along one axis: x (B, C, L) or (C, L), weight (O, C/groups, k) -> (B, O, L').

    >>> SF.band_limited_conv1d(torch.rand(2, 3, 100), torch.rand(8, 3, 5), padding=2, compression=0.5).shape
    torch.Size([2, 8, 100])
    """
    y, _, _ = convolve(
        x, weight, bias, stride, padding, dilation, groups,
        compression=compression, energy=energy, algorithm=algorithm, dims=1,
    )  # fmt: skip
    return y
