"""The networks of Rippel, Snoek & Adams (2015), with filters trained in space or as Fourier coefficients."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from spectral_kernels import dispatch
from torch import nn

import specviz.nn as snn
from specviz.models.forms import FEWEST_CHANNELS, start
from specviz.models.network import Convolution, check_numbers, layer_of, whole


def rippel_deep(
    num_classes: int = 10,
    *,
    image_size: int = 32,
    in_channels: int = 3,
    width: float = 1.0,
    kernel_size: int = 3,
    convolution: Convolution = "spatial",
) -> nn.Sequential:
    """The deep network: 96, 96, max 3/2, 192, 192, 192, max 3/2, 1 x 1 to 192, 1 x 1 to the classes, global mean.

    x (B, in_channels, H, W) real -> (B, num_classes) scores, before a softmax

    width        multiplies the channel counts (at least 4 are left)
    kernel_size  of the convolutions before the 1 x 1 ones: 3 or 5 in the paper
    convolution  "spatial", "spectral-param", "band-limited", or a function of nn.Conv2d's arguments: all start from
                 the same filters for the same seed

    The last convolution has no activation: its output are scores (one replication had a ReLU there).
    """
    build = _Builder("rippel_deep", num_classes, image_size, 7, in_channels, width, kernel_size, convolution)
    for layer in (96, 96, "max", 192, 192, 192, "max"):
        build.add(layer)
    return build.ends_in_mean(192)


def rippel_generic(
    num_classes: int = 10,
    *,
    image_size: int = 32,
    in_channels: int = 3,
    width: float = 1.0,
    kernel_size: int = 3,
    convolution: Convolution = "spatial",
) -> nn.Sequential:
    """The generic network: 96, max 3/2, 192, max 3/2, then linear layers of 1024, 512 and the classes.

    Arguments as `rippel_deep`; `width` multiplies the linear layers too.
    """
    build = _Builder("rippel_generic", num_classes, image_size, 7, in_channels, width, kernel_size, convolution)
    for layer in (96, "max", 192, "max"):
        build.add(layer)
    return build.ends_linearly((1024, 512))


def rippel_pooling(
    num_classes: int = 10,
    *,
    image_size: int = 32,
    in_channels: int = 3,
    width: float = 1.0,
    kernel_size: int = 3,
    convolution: Convolution = "spatial",
    depth: int = 6,
    gamma: float = 0.85,
    frequency_dropout: bool = False,
) -> nn.Sequential:
    """The spectral pooling network: `depth` times convolution, ReLU, spectral pooling; 1 x 1 twice; global mean.

    Arguments as `rippel_deep`, and

    depth              M; convolution m = 1..M has min(288, 96 + 32 m) channels
    gamma              each pooling leaves floor(gamma n) pixels of n a side
    frequency_dropout  draw a cut-off for each mini-batch in the pooling layers, with the paper's alpha 0.30, beta 0.15
    """
    depth, gamma = whole("rippel_pooling", "depth", depth), dispatch.real(gamma, "rippel_pooling: gamma")
    if not 0 < gamma <= 1:
        raise ValueError(f"rippel_pooling: gamma={gamma} must lie in (0, 1]")
    build = _Builder("rippel_pooling", num_classes, image_size, 1, in_channels, width, kernel_size, convolution)
    side = build.side
    for m in range(1, depth + 1):
        side = int(gamma * side)
        if side < 1:
            raise ValueError(f"rippel_pooling: image_size={image_size} leaves no pixel after {m} poolings by {gamma}")
        dropout = snn.FrequencyDropout2d(m, depth) if frequency_dropout else None
        build.add(min(288, 96 + 32 * m))
        build.layers[f"pool{m}"] = snn.SpectralPool2d((side, side), dropout=dropout)
    return build.ends_in_mean(min(288, 96 + 32 * depth))


class _Builder:
    """Layers by name, as they are added."""

    def __init__(
        self,
        name: str,
        num_classes: int,
        image_size: int,
        smallest: int,
        in_channels: int,
        width: float,
        kernel_size: int,
        convolution: Convolution,
    ) -> None:
        num_classes, image_size, in_channels, width, _ = check_numbers(
            name, num_classes, image_size, in_channels, width
        )
        if image_size < smallest:
            raise ValueError(f"{name}: image_size={image_size} is too small for its pooling; use at least {smallest}")
        kernel_size = whole(name, "kernel_size", kernel_size)
        if kernel_size % 2 == 0:
            raise ValueError(f"{name}: kernel_size={kernel_size} must be odd, so that maps keep their size")
        if convolution == "specnet":
            raise ValueError(f"{name} has no SpecNet form; sv.models.vgg11 is a plain network that has")
        self.layer: Any = layer_of(name, convolution)
        self.num_classes, self.C, self.side = num_classes, in_channels, image_size
        self.width, self.kernel_size = width, kernel_size
        self.layers: OrderedDict[str, nn.Module] = OrderedDict()

    def channels(self, usual: int) -> int:
        return max(FEWEST_CHANNELS, round(usual * self.width))

    def add(self, layer: int | str) -> None:
        """A convolution of so many channels with its ReLU, or "max": max pooling, 3 x 3, every second pixel."""
        count = len(self.layers)
        if isinstance(layer, int):
            self._convolution(f"conv{count}", self.channels(layer), self.kernel_size)
            self.layers[f"relu{count}"] = nn.ReLU(inplace=True)
        else:
            self.layers[f"max{count}"] = nn.MaxPool2d(3, stride=2)
            self.side = (self.side - 3) // 2 + 1

    def _convolution(self, name: str, channels: int, k: int) -> None:
        conv = self.layer(self.C, channels, k, padding=k // 2)
        self.layers[name], self.C = start(conv, "relu"), channels

    def ends_in_mean(self, usual: int) -> nn.Sequential:
        self._convolution("mix", self.channels(usual), 1)
        self.layers["mix_relu"] = nn.ReLU(inplace=True)
        self._convolution("scores", self.num_classes, 1)
        self.layers["mean"] = nn.AdaptiveAvgPool2d(1)
        self.layers["flatten"] = nn.Flatten()
        return nn.Sequential(self.layers)

    def ends_linearly(self, hidden: tuple[int, ...]) -> nn.Sequential:
        self.layers["flatten"] = nn.Flatten()
        numbers = self.C * self.side**2
        for i, usual in enumerate(hidden, 1):
            linear = nn.Linear(numbers, numbers := self.channels(usual))
            with torch.no_grad():
                nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
            self.layers[f"linear{i}"], self.layers[f"linear_relu{i}"] = linear, nn.ReLU(inplace=True)
        self.layers["scores"] = nn.Linear(numbers, self.num_classes)
        return nn.Sequential(self.layers)
