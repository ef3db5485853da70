"""Transposed convolution without high frequencies: the adjoint of the band-limited convolution in its input.

The definition. A transposed convolution takes y (B, O, h, w) to the maps (B, C, H, W) that a convolution with the same
weight, stride, padding and dilation would have taken to maps of y's size; `output_padding` says which H and W these
are. Here that convolution is band-limited, at the sizes S and with the band that H and W give it, and the function is
its exact transpose. At compression 0 this is torch's own transposed convolution; at any other, the maps that come out
have spectra at S, padding included, without anything outside the band. The backward pass is the band-limited
convolution.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from spectral_kernels.dispatch import in_onnx_export, whole, wholes
from torch import Tensor

from specviz.functional import tracing
from specviz.functional.band_limited.choice import Algorithm
from specviz.functional.band_limited.conv import settings_of
from specviz.functional.band_limited.conv3d import Convolved
from specviz.functional.band_limited.depth import axes_of
from specviz.functional.band_limited.direct import with_bias
from specviz.functional.band_limited.routes import Settings
from specviz.functional.band_limited.transposes import band_correlate_back, correlate_back, laid_out, way_of
from specviz.functional.precision import no_autocast, working_dtypes
from specviz.functional.symbolic import one_node

_OWN: tuple[Any, ...] = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)


def _check_tensors_back(x: Tensor, weight: Tensor, bias: Tensor | None, groups: int, dims: int) -> None:
    name, sides, filters = f"band_limited_conv_transpose{dims}d", tracing.shape_of(x), tracing.shape_of(weight)
    if x.ndim not in (dims + 1, dims + 2) or weight.ndim != dims + 2:
        raise ValueError(
            f"{name} takes x of {dims + 2} dimensions (or {dims + 1} without a batch) and weight of {dims + 2}, "
            f"got {tuple(sides)} and {tuple(filters)}"
        )
    for argument, tensor in (("x", x), ("weight", weight), ("bias", bias)):
        if tensor is not None and not tensor.is_floating_point():
            raise TypeError(f"{name} takes real floating-point tensors; {argument} is {tensor.dtype}: use .float()")
    if filters[0] % groups:
        raise ValueError(f"groups={groups} must divide the {filters[0]} input channels")
    if sides[-dims - 1] != filters[0]:
        raise ValueError(f"x has {sides[-dims - 1]} channels, but weight {tuple(filters)} takes {filters[0]}")
    outputs = filters[1] * groups
    if bias is not None and tuple(tracing.shape_of(bias)) != (outputs,):
        raise ValueError(
            f"bias has shape {tuple(tracing.shape_of(bias))}; it must have one number for each output, {outputs}"
        )
    if 0 in sides[-dims:] or 0 in filters:
        raise ValueError(f"nothing to convolve: x {tuple(sides)}, weight {tuple(filters)}")


def _new_sides(sides: Any, taps: Any, s: Settings, more: tuple[int, ...]) -> tuple[int, ...]:
    """Of the maps that come out, as torch has them."""
    for extra, step, d in zip(more, s.strides, s.dilations, strict=True):
        if extra >= max(step, d):
            raise ValueError(
                f"output_padding={extra} must be smaller than the stride or the dilation, {step} and {d}: it chooses "
                "among the sizes that a convolution takes to the same one"
            )
    new = tuple(
        (n - 1) * step - 2 * pad + d * (k - 1) + 1 + extra
        for n, k, step, (pad, _), d, extra in zip(sides, taps, s.strides, s.pads, s.dilations, more, strict=True)
    )
    if tracing.known(new) is not None and min(new) < 1:
        raise ValueError(
            f"nothing is left of {tuple(sides)} pixels: padding={tuple(p for p, _ in s.pads)} makes {new} of them; "
            "use less padding"
        )
    return new


def convolve_transposed(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: int | Sequence[int],
    padding: int | Sequence[int],
    output_padding: int | Sequence[int],
    groups: int,
    dilation: int | Sequence[int],
    *,
    compression: float,
    algorithm: Algorithm,
    dims: int,
) -> Convolved:
    """What the layers call: the outputs, the layout that was followed and the algorithm that ran; see `convolve`."""
    groups = whole(groups, "groups", 1)
    _check_tensors_back(x, weight, bias, groups, dims)
    padding = wholes(padding, dims, "padding", 0)  # no words, as in torch
    settings = settings_of(dims, (), stride, padding, dilation, groups, False, compression, None, algorithm)
    more = wholes(output_padding, dims, "output_padding", 0)
    working, result = working_dtypes(x, weight, bias)
    maps = x if x.ndim == dims + 2 else x[None]
    with no_autocast(x.device.type):
        shift = None if bias is None else bias.to(working)
        y, layout, ran = _transposed(maps.to(working), weight.to(working), shift, settings, more)
    is_last, last = (
        (tracing.is_channels_last, torch.channels_last)
        if dims == 2
        else (tracing.is_channels_last_3d, torch.channels_last_3d)
    )
    if dims > 1 and (is_last(maps) or is_last(weight)):  # as torch's convolution does
        y = y.contiguous(memory_format=last)
    return (y if x.ndim == dims + 2 else y[0]).to(result), layout, ran


def _transposed(x: Tensor, weight: Tensor, bias: Tensor | None, s: Settings, more: tuple[int, ...]) -> Convolved:
    dims = len(s.strides)
    known = tracing.known(x.shape[2:]), tracing.known(weight.shape[2:])
    sides, taps = (tuple(shape) for shape in (known[0] or x.shape[2:], known[1] or weight.shape[2:]))
    new = _new_sides(sides, taps, s, more)
    if None in known:
        if s.is_complete and s.algorithm in ("auto", "direct"):
            return _own(x, weight, bias, s, more), None, "direct"
        y = _of_any_size_back(*_as_planes(x, weight, dims), s, new)
        return with_bias(y.squeeze(-2) if dims == 1 else y, bias), None, None
    layout = laid_out(new, taps, s.pads, s.strides, s.dilations, sides, False, s.compression)
    assert tuple(axis.size for axis in axes_of(layout)) == new

    def run(algorithm: Algorithm, x: Tensor, weight: Tensor) -> Tensor:
        if algorithm == "direct" and s.is_complete:
            return _own(x, weight, None, s, more)
        y = correlate_back(*_as_planes(x, weight, dims), layout, algorithm, s.groups)
        return y.squeeze(-2) if dims == 1 else y

    # The convolution that this is the transpose of has x's channels as its outputs.
    shape = x.shape[0], weight.shape[1] * s.groups, weight.shape[0], s.groups
    ran = way_of(layout, s.algorithm, x, weight, shape, run, transposed=True)
    if ran == "direct" and s.is_complete:
        return _own(x, weight, bias, s, more), layout, ran
    if tracing.leaves_a_program():
        ran = "lowpass"  # torch's own transposed convolution, and matrices for the low pass
    elif x.shape[0] == 0:
        return with_bias(x.new_zeros(0, shape[1], *new) + 0 * (x.sum() + weight.sum()), bias), layout, ran
    return with_bias(run(ran, x, weight), bias), layout, ran


def _own(x: Tensor, weight: Tensor, bias: Tensor | None, s: Settings, more: tuple[int, ...]) -> Tensor:
    """torch's own transposed convolution."""
    around = tuple(pad for pad, _ in s.pads)
    y: Tensor = _OWN[len(s.strides) - 1](x, weight, bias, s.strides, around, more, s.groups, s.dilations)
    return y


def _as_planes(x: Tensor, weight: Tensor, dims: int) -> tuple[Tensor, Tensor]:
    """A series as a map of one row."""
    return (x.unsqueeze(-2), weight.unsqueeze(-2)) if dims == 1 else (x, weight)


def _of_any_size_back(x: Tensor, weight: Tensor, s: Settings, new: tuple[int, ...]) -> Tensor:
    dims = len(s.strides)
    if in_onnx_export():
        raise ValueError(
            f"band_limited_conv_transpose{dims}d has no ONNX form for maps of many sizes: export it for one size, "
            "with a dynamic batch if need be"
        )
    size = [*((1,) if dims == 1 else ()), *new]
    around = [side for pair in s.pads for side in pair]
    return band_correlate_back(
        x, weight, None, size, list(s.strides), around, list(s.dilations), s.groups, False, s.compression, s.algorithm
    )


@one_node
def band_limited_conv_transpose2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    output_padding: int | Sequence[int] = 0,
    groups: int = 1,
    dilation: int | Sequence[int] = 1,
    *,
    compression: float = 0.0,
    algorithm: Algorithm = "auto",
) -> Tensor:
    """The transpose of `band_limited_conv2d` in its map: torch's `conv_transpose2d` with a band.

    x            (B, C, h, w) or (C, h, w) real; weight (C, O/groups, k_h, k_w) -> (B, O, H, W) as conv_transpose2d
    compression  share of the coefficients that the band of the (H, W) maps discards, in [0, 1): that of the convolution
                 whose transpose it is. At 0 it is the ordinary transposed convolution
    algorithm    "auto", "gemm", "fft", "lowpass" (torch's own, then a low pass) or "direct" (compression 0 only); the
                 same result beyond rounding

    There is no energy mode: it would need the energy of the maps that the call has yet to compute. The gradient with
    respect to x is `band_limited_conv2d` of the outputs' gradient, with the same weight. An exported program consists
    of torch's own transposed convolution and matrix products; for many sizes it needs this package where it runs, and
    ONNX raises ValueError. The convolution is Dziedzic et al.'s (2019), the transpose ours.

    >>> x, weight = torch.rand(2, 8, 16, 16), torch.rand(8, 3, 4, 4)
    >>> SF.band_limited_conv_transpose2d(x, weight, stride=2, padding=1, compression=0.5).shape
    torch.Size([2, 3, 32, 32])
    """
    y, _, _ = convolve_transposed(
        x, weight, bias, stride, padding, output_padding, groups, dilation,
        compression=compression, algorithm=algorithm, dims=2,
    )  # fmt: skip
    return y


@one_node
def band_limited_conv_transpose1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    output_padding: int | Sequence[int] = 0,
    groups: int = 1,
    dilation: int | Sequence[int] = 1,
    *,
    compression: float = 0.0,
    algorithm: Algorithm = "auto",
) -> Tensor:
    """`band_limited_conv_transpose2d` along one axis: x (B, C, l) or (C, l), weight (C, O/groups, k) -> (B, O, L).

    >>> x, weight = torch.rand(2, 8, 50), torch.rand(8, 3, 4)
    >>> SF.band_limited_conv_transpose1d(x, weight, stride=2, padding=1, compression=0.5).shape
    torch.Size([2, 3, 100])
    """
    y, _, _ = convolve_transposed(
        x, weight, bias, stride, padding, output_padding, groups, dilation,
        compression=compression, algorithm=algorithm, dims=1,
    )  # fmt: skip
    return y


@one_node
def band_limited_conv_transpose3d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    output_padding: int | Sequence[int] = 0,
    groups: int = 1,
    dilation: int | Sequence[int] = 1,
    *,
    compression: float = 0.0,
    algorithm: Algorithm = "auto",
) -> Tensor:
    """`band_limited_conv_transpose2d` of volumes: x (B, C, d, h, w) or (C, d, h, w) -> (B, O, D, H, W).

    >>> x, weight = torch.rand(2, 4, 4, 8, 8), torch.rand(4, 3, 2, 2, 2)
    >>> SF.band_limited_conv_transpose3d(x, weight, stride=2, compression=0.5).shape
    torch.Size([2, 3, 8, 16, 16])
    """
    y, _, _ = convolve_transposed(
        x, weight, bias, stride, padding, output_padding, groups, dilation,
        compression=compression, algorithm=algorithm, dims=3,
    )  # fmt: skip
    return y
