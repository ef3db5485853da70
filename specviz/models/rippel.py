"""The networks of Rippel, Snoek & Adams (2015), with filters trained in space or as Fourier coefficients."""

from __future__ import annotations

from collections import OrderedDict

from spectral_kernels import dispatch
from torch import nn

import specviz.nn as snn
from specviz.models.convolutions import SPECTRAL, Convolution
from specviz.models.forms import ImageForm
from specviz.models.network import Limits, check_numbers, image_form, whole


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

    x (B, in_channels, H, W) real -> (B, num_classes) scores, before a softmax. A number is a convolution with so many
    channels and ReLU, "max 3/2" max pooling of 3 x 3 pixels at stride 2

    width        multiplies the channel counts (at least 4 are left)
    kernel_size  of the convolutions before the 1 x 1 ones: 3 or 5 in the paper
    convolution  "spatial", "spectral-param", "band-limited", or a function of nn.Conv2d's arguments: all start from
                 the same filters for the same seed

    The last convolution has no activation, since its output is the scores (one replication had a ReLU there).

    >>> sv.models.rippel_deep(num_classes=10, width=0.25)(torch.rand(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """
    chain = _chain("rippel_deep", 7, num_classes, image_size, in_channels, width, kernel_size, convolution)
    chain.add(96, 96, "max", 192, 192, 192, "max")
    return chain.ends_in_mean(192)


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

    >>> sv.models.rippel_generic(num_classes=10, width=0.25)(torch.rand(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """
    chain = _chain("rippel_generic", 7, num_classes, image_size, in_channels, width, kernel_size, convolution)
    chain.add(96, "max", 192, "max")
    return chain.ends_linearly((1024, 512))


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

    >>> sv.models.rippel_pooling(num_classes=10, width=0.25)(torch.rand(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """
    depth, gamma = whole("rippel_pooling", "depth", depth), dispatch.real(gamma, "rippel_pooling: gamma")
    if not 0 < gamma <= 1:
        raise ValueError(f"rippel_pooling: gamma={gamma} must lie in (0, 1]")
    chain = _chain("rippel_pooling", 1, num_classes, image_size, in_channels, width, kernel_size, convolution)
    side = chain.side
    for m in range(1, depth + 1):
        side = int(gamma * side)
        if side < 1:
            raise ValueError(f"rippel_pooling: image_size={image_size} leaves no pixel after {m} poolings by {gamma}")
        dropout = snn.FrequencyDropout2d(m, depth) if frequency_dropout else None
        chain.add(min(288, 96 + 32 * m))
        chain.layers[f"pool{m}"] = snn.SpectralPool2d((side, side), dropout=dropout)
    return chain.ends_in_mean(min(288, 96 + 32 * depth))


class _Chain:
    """Layers by name, as they are added; `side` is that of their maps."""

    def __init__(self, form: ImageForm, kernel_size: int) -> None:
        self.form, self.kernel_size = form, kernel_size
        self.C, self.side = form.in_channels, form.image_size
        self.layers: OrderedDict[str, nn.Module] = OrderedDict()

    def add(self, *parts: int | str) -> None:
        """Convolutions of so many channels with their ReLU, and "max": max pooling, 3 x 3, every second pixel."""
        for part in parts:
            count = len(self.layers)
            if isinstance(part, int):
                self._convolution(f"conv{count}", self.form.channels(part), self.kernel_size)
                self.layers[f"relu{count}"] = self.form.pixel_activation()
            else:
                self.layers[f"max{count}"] = self.form.max_pool(3)
                self.side = (self.side - 3) // 2 + 1

    def _convolution(self, name: str, channels: int, k: int) -> None:
        self.layers[name], self.C = self.form.convolution(self.C, channels, k), channels

    def ends_in_mean(self, usual: int) -> nn.Sequential:
        self._convolution("mix", self.form.channels(usual), 1)
        self.layers["mix_relu"] = self.form.pixel_activation()
        self._convolution("scores", self.form.num_classes, 1)
        self.layers["mean"], self.layers["flatten"] = self.form.to_image(1), nn.Flatten()
        return nn.Sequential(self.layers)

    def ends_linearly(self, hidden: tuple[int, ...]) -> nn.Sequential:
        self.layers["flatten"] = nn.Flatten()
        numbers = self.C * self.side**2
        for i, usual in enumerate(hidden, 1):
            linear = nn.Linear(numbers, numbers := self.form.channels(usual))
            nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
            self.layers[f"linear{i}"], self.layers[f"linear_relu{i}"] = linear, self.form.pixel_activation()
        self.layers["scores"] = nn.Linear(numbers, self.form.num_classes)
        return nn.Sequential(self.layers)


def _chain(
    name: str,
    smallest: int,
    num_classes: int,
    image_size: int,
    in_channels: int,
    width: float,
    kernel_size: int,
    convolution: Convolution,
) -> _Chain:
    numbers = check_numbers(name, num_classes, image_size, in_channels, width)
    Limits(smallest, batch_norm=False).check(name, numbers[1])
    kernel_size = whole(name, "kernel_size", kernel_size)
    if kernel_size % 2 == 0:
        raise ValueError(f"{name}: kernel_size={kernel_size} must be odd, so that maps keep their size")
    if convolution == SPECTRAL:
        raise ValueError(f"{name} has no SpecNet form; sv.models.vgg11 is a plain network that has")
    return _Chain(image_form(name, numbers, convolution), kernel_size)
