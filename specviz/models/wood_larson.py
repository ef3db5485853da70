"""The network of Wood & Larson (2021): four convolutions at full size, whose filters may be spectral functions."""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal

import torch
from torch import nn

import specviz.nn as snn
from specviz.models.forms import Scale
from specviz.models.network import check_numbers, whole

Filters = Literal["spatial", "full", "linear", "gaussian"]


def wood_larson(
    num_classes: int = 2,
    *,
    image_size: int = 150,
    in_channels: int = 3,
    filters: Filters = "spatial",
    channels: int = 6,
    max_pool: bool = False,
    intercept: bool = False,
    scaled_head: bool = False,
    head_size: int | None = None,
) -> nn.Sequential:
    """Four convolutions with ReLU, no down-sampling, one linear layer, tanh: for cats and dogs at 150 x 150.

    x (B, in_channels, image_size, image_size) real -> (B, num_classes) scores in (-1, 1)

    filters    "spatial": nn.Conv2d, 3 x 3; "full": a half spectrum for each filter; "linear" and "gaussian":
               `snn.ParametricSpectralConv2d`
    channels   of each convolution. With the published code's 6 the linear layer has 270,000 of the weights
    max_pool   spatial only: halve the maps after every convolution
    intercept  linear only: the published code's filters of 8 numbers, see `snn.ParametricSpectralConv2d`
    scaled_head  the linear layer's weights begin sqrt(n) times as large, for its n inputs, and its sums are divided by
               as much: the same function at first, but a step of Adam moves the scores sqrt(n) times less. Without it
               the tanh saturates in the first steps at usual rates, and the network never learns
    head_size  pool the last maps spectrally to head_size x head_size, so that the linear layer takes images of this
               side or any larger one; not with "full" filters, which have one side

    >>> sv.models.wood_larson(num_classes=2, image_size=32, filters="gaussian")(torch.rand(2, 3, 32, 32)).shape
    torch.Size([2, 2])
    """
    num_classes, image_size, in_channels, _, _ = check_numbers("wood_larson", num_classes, image_size, in_channels)
    channels = whole("wood_larson", "channels", channels)
    if filters not in ("spatial", "full", "linear", "gaussian"):
        raise ValueError(f"wood_larson: filters={filters!r} must be spatial, full, linear or gaussian")
    if max_pool and (filters != "spatial" or image_size < 16):
        raise ValueError(
            f"wood_larson: max_pool=True goes with spatial filters and images of at least 16 pixels, not with "
            f"filters={filters!r} at {image_size}"
        )
    if head_size is not None:
        head_size = whole("wood_larson", "head_size", head_size)
        if filters == "full" or head_size > image_size // (16 if max_pool else 1):
            raise ValueError(
                f"wood_larson: head_size={head_size} is for maps that are at least as large, and not for filters='full'"
            )
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    C, side = in_channels, image_size
    for i in range(1, 5):
        if filters == "spatial":
            layers[f"conv{i}"] = nn.Conv2d(C, channels, 3, padding=1)
        else:
            size = (side, side) if filters == "full" else None
            layers[f"conv{i}"] = snn.ParametricSpectralConv2d(
                C, channels, kind=filters, size=size, bias=True, intercept=intercept
            )
        layers[f"relu{i}"] = nn.ReLU(inplace=True)
        if max_pool:
            layers[f"max{i}"] = nn.MaxPool2d(2)
            side //= 2
        C = channels
    if head_size is not None:
        layers["pool"] = snn.SpectralPool2d((head_size, head_size))
        side = head_size
    layers["flatten"] = nn.Flatten()
    numbers = C * side * side
    layers["linear"] = linear = nn.Linear(numbers, num_classes)
    if scaled_head:
        with torch.no_grad():
            linear.weight.mul_(numbers**0.5)
            linear.bias.mul_(numbers**0.5)
        layers["scale"] = Scale(numbers**-0.5)
    layers["tanh"] = nn.Tanh()
    return nn.Sequential(layers)
