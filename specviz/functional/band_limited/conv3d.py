"""Convolution of volumes without their high frequencies: the definition of `conv.py` along three axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from spectral_kernels.dispatch import whole
from torch import Tensor

from specviz.functional import tracing
from specviz.functional.band_limited.choice import Algorithm
from specviz.functional.band_limited.conv import check_tensors, settings_of
from specviz.functional.band_limited.depth import Layout, axes_of, with_energy
from specviz.functional.band_limited.direct import with_bias
from specviz.functional.band_limited.routes import Settings, of_any_size
from specviz.functional.band_limited.transposes import correlate, laid_out, way_of
from specviz.functional.precision import no_autocast, working_dtypes
from specviz.functional.symbolic import one_node

Convolved = tuple[Tensor, Layout | None, Algorithm | None]


def convolve_volumes(
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
    circular: bool = False,
) -> Convolved:
    """What the layer calls: the outputs, the layout that was followed and the algorithm that ran; see `convolve`."""
    groups = whole(groups, "groups", 1)
    check_tensors(x, weight, bias, groups, 3)
    asked = stride, padding, dilation, groups, circular, compression, energy, algorithm
    settings = settings_of(3, tuple(tracing.shape_of(weight)[2:]), *asked)
    working, result = working_dtypes(x, weight, bias)
    volumes = x if x.ndim == 5 else x[None]
    with no_autocast(x.device.type):
        shift = None if bias is None else bias.to(working)
        y, layout, ran = _convolved(volumes.to(working), weight.to(working), shift, settings)
    if tracing.is_channels_last_3d(volumes) or tracing.is_channels_last_3d(weight):  # as torch's convolution does
        y = y.contiguous(memory_format=torch.channels_last_3d)
    return (y if x.ndim == 5 else y[0]).to(result), layout, ran


def _convolved(x: Tensor, weight: Tensor, bias: Tensor | None, s: Settings) -> Convolved:
    sizes, taps = tracing.known(x.shape[2:]), tracing.known(weight.shape[2:])
    unread = s.asks_data and (tracing.leaves_a_program() or not tracing.is_readable(x))
    if sizes is None or taps is None or unread:
        return of_any_size(x, weight, bias, s, _conv_of_torch)
    layout = laid_out(sizes, taps, s.pads, s.strides, s.dilations, None, s.circular, s.compression)
    if s.asks_data and x.shape[0]:  # nothing says what an empty batch needs
        layout = with_energy(layout, x, s.energy or 1.0)
    channels, outputs = weight.shape[1] * s.groups, weight.shape[0]

    def run(algorithm: Algorithm, x: Tensor, weight: Tensor) -> Tensor:
        if algorithm == "direct" and layout.is_complete:
            return _conv_of_torch(x, weight, None, s)
        return correlate(x, weight, layout, algorithm, s.groups)

    shape = x.shape[0], channels, outputs, s.groups
    ran = way_of(layout, s.algorithm, x, weight, shape, None if s.asks_data else run)
    if not tracing.leaves_a_program() and x.shape[0] == 0 and ran != "direct":
        empty = x.new_zeros(0, outputs, *(axis.outputs for axis in axes_of(layout)))
        return with_bias(empty + 0 * (x.sum() + weight.sum()), bias), layout, ran
    if ran == "direct" and layout.is_complete:
        return _conv_of_torch(x, weight, bias, s), layout, ran
    return with_bias(correlate(x, weight, layout, ran, s.groups), bias), layout, ran


def _conv_of_torch(x: Tensor, weight: Tensor, bias: Tensor | None, s: Settings) -> Tensor:
    """torch's own convolution."""
    (front, back), (top, bottom), (left, right) = s.pads
    around: Any = 0
    if s.circular:
        x = F.pad(x, (left, right, top, bottom, front, back), mode="circular")
    elif (front, top, left) == (back, bottom, right):  # its own padding costs nothing
        around = (front, top, left)
    else:
        x = F.pad(x, (left, right, top, bottom, front, back))
    return F.conv3d(x, weight, bias, s.strides, around, s.dilations, s.groups)


@one_node
def band_limited_conv3d(
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
    """`band_limited_conv2d` of volumes: x (B, C, D, H, W) or (C, D, H, W), weight (O, C/groups, k_d, k_h, k_w).

    compression  share of the coefficients that the band discards, in [0, 1): each axis keeps the share
                 cbrt(1 - compression) of its half. At 0 it is the ordinary convolution
    energy       instead: keep the smallest band that holds this share of the volumes' energy, in (0, 1]
    algorithm    "auto", "gemm", "fft", "lowpass" or "direct" (compression 0 only); the same result beyond rounding

    The depth is transformed by a product with the cosines and sines of its band. At each of its frequencies planes are
    convolved, by the algorithm of that name in two dimensions. Autograd saves the volume's retained coefficients and
    the planes' taps. In energy mode, or for many sizes, a compiled graph saves the volume, an exported program needs
    this package where it runs, and ONNX raises ValueError. Dziedzic et al. (2019) have one and two dimensions; the
    third is ours, by the same rule. Not measured on a GPU yet.

    >>> x, weight = torch.rand(2, 3, 8, 16, 16), torch.rand(4, 3, 3, 3, 3)
    >>> SF.band_limited_conv3d(x, weight, padding=1, compression=0.5).shape
    torch.Size([2, 4, 8, 16, 16])
    """
    y, _, _ = convolve_volumes(
        x, weight, bias, stride, padding, dilation, groups,
        compression=compression, energy=energy, algorithm=algorithm,
    )  # fmt: skip
    return y
