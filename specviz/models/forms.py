"""The two forms of a network, on images and on half spectra: what each part is made of.

An architecture is written once, as a function of a `Form`: it asks for a convolution unit, for pooling, for the way
back to numbers. `ImageForm` answers with torch's layers (or a sibling in the place of `nn.Conv2d`), `SpectralForm`
with SpecNet's, which pass half spectra on.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import torch
import torch.nn.functional as F
from spectral_kernels import dispatch
from torch import Tensor, nn

import specviz.nn as snn
from specviz.functional.symbolic import one_node
from specviz.models.repairs import AMPLITUDE, MixedUnit, RepairedUnit, SpectralActivation
from specviz.spectra import HalfSpectrum

IMAGENET_SIDE = 128  # from this side on a network begins as on ImageNet: large strides, then max pooling
FEWEST_CHANNELS = 4
FEWEST_FREQUENCIES = 4  # a side of the map that a spectral network's head reads


class Pointwise(nn.Module):
    """A function of one number as a layer: any shape -> the same."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)

    def extra_repr(self) -> str:
        return getattr(self.function, "__name__", repr(self.function))


class Unit(nn.Module):
    """Convolution, batch norm or nothing, activation or nothing; called as a SpecNet block is.

    x (B, C, H, W), shortcut (B, O, h, w) or None -> (B, O, h, w). The shortcut is added before the activation.
    """

    def __init__(self, conv: nn.Module, norm: nn.Module, activation: nn.Module) -> None:
        super().__init__()
        self.conv, self.norm, self.activation = conv, norm, activation

    def forward(self, x: Tensor, shortcut: Tensor | None = None) -> Tensor:
        x = self.norm(self.conv(x))
        if shortcut is not None:
            x += shortcut
        y: Tensor = self.activation(x)
        return y


class Subsample(nn.Module):
    """Pooling by a stride, as SpecNet's paper says: every second pixel of maps; of half spectra, by summing aliases.

    (B, C, H, W) real -> (B, C, ceil(H/2), ceil(W/2)), or half spectra of such maps, whose sides must be even.
    """

    @one_node
    def forward(self, x: Any) -> Any:
        return x[..., ::2, ::2] if isinstance(x, Tensor) else x.subsample(2)


class Crop(nn.Module):
    """SpecNet's pooling: half spectra of (B, C, H, W) maps -> those of (B, C, H // 2, W // 2) maps, at least 4 x 4.

    Each side is rounded down to a multiple of `multiple`, the total stride of the blocks that follow. A side below 4
    stays as it is: see `SpectralForm.head_side`.
    """

    def __init__(self, multiple: int = 1) -> None:
        super().__init__()
        self.multiple = multiple

    @one_node
    def forward(self, X: HalfSpectrum) -> HalfSpectrum:
        h, w = (max(n // 2 // self.multiple * self.multiple, min(n, FEWEST_FREQUENCIES)) for n in X.size)
        return X.crop((h, w))

    def extra_repr(self) -> str:
        return f"multiple={self.multiple}" if self.multiple > 1 else ""


class ToImage(nn.Module):
    """Leave the spectral domain: half spectra (B, C, ., .) -> maps (B, C, h, w) real, h = w = `side`.

    Larger spectra are cropped. The pixels of smaller maps are repeated, as nn.AdaptiveAvgPool2d does.
    """

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    @one_node
    def forward(self, X: HalfSpectrum) -> Tensor:
        h, w = (min(n, self.side) for n in X.size)
        x = (X if X.size == (h, w) else X.crop((h, w))).image()
        return x if h == w == self.side else F.adaptive_avg_pool2d(x, self.side)

    def extra_repr(self) -> str:
        return f"side={self.side}"


class Scale(nn.Module):
    """Scores times a fixed number: any shape -> the same."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor

    def extra_repr(self) -> str:
        return f"{self.factor:.3g}"


@dataclass(frozen=True)
class Form(ABC):
    """What a network is built for, and the parts to build it from. C channels in, O out, filters of side k."""

    num_classes: int
    image_size: int
    in_channels: int
    width: float
    activation: Any  # a name or, on spectra, a function
    dropout: float | None

    @property
    def imagenet(self) -> bool:
        """Whether the network begins as on ImageNet, not as on CIFAR."""
        return self.image_size >= IMAGENET_SIDE

    def channels(self, usual: int) -> int:
        """A layer's channels at this width."""
        return max(FEWEST_CHANNELS, round(usual * self.width))

    @abstractmethod
    def unit(
        self,
        C: int,
        O: int,
        k: int,
        *,
        stride: int = 1,
        padding: int | None = None,
        activate: bool = True,
        multiple: int = 1,
        pool: bool = False,
    ) -> nn.Module:
        """Convolution, batch norm, activation; `forward(x, shortcut=None)` adds the shortcut before the activation.

        padding   of an image, (k - 1) / 2 by default; of spectra, only the first block pads, and chooses how much
        multiple  the first block pads its spectrum to sides that are multiples of this, for strides of later blocks
        pool      halve the maps between convolution and norm, by the largest of 2 x 2 pixels or as the form pools
        """

    def folds(self, strides: int) -> int:
        """The `multiple` for a network whose poolings divide a side by `strides` in all: 1 unless they are strides."""
        return 1

    @abstractmethod
    def convolution(self, C: int, O: int, k: int, *, multiple: int = 1) -> nn.Module:
        """The first convolution of a network whose units activate first, DenseNet's; `multiple` as in `unit`."""

    @abstractmethod
    def preactivated(self, C: int, O: int, k: int) -> nn.Module:
        """Batch norm, activation, convolution: DenseNet's unit."""

    @abstractmethod
    def last_activation(self, C: int) -> nn.Module:
        """Batch norm and activation after the last of such units."""

    @abstractmethod
    def max_pool(self, k: int = 2, *, padding: int = 0, multiple: int = 1) -> nn.Module:
        """Halve the maps by the largest pixel of k x k; `multiple` as in `unit`."""

    @abstractmethod
    def average_pool(self) -> nn.Module:
        """Halve the maps by the mean of 2 x 2 pixels."""

    @staticmethod
    @abstractmethod
    def concatenate(parts: list[Any]) -> Any:
        """Join maps along their channels."""

    @abstractmethod
    def to_image(self, side: int, largest: bool = False) -> nn.Module:
        """Maps of any size -> real maps (B, C, side, side): means, or the largest pixels where a network has these."""

    def head_side(self, side: int, features: list[nn.Module]) -> int:
        """Side of the map that the head reads after these features, where the original reads `side` pixels."""
        return side

    def pixel_activation(self) -> nn.Module:
        """The activation as a layer on real numbers."""
        layers: dict[Any, Callable[[], nn.Module]] = {
            "relu": lambda: nn.ReLU(inplace=True),
            "gelu": nn.GELU,
            "tanh": nn.Tanh,
            "softsign": nn.Softsign,
            "arctan": lambda: Pointwise(torch.arctan),
            AMPLITUDE: nn.Tanh,  # which it is on real numbers
            "hardtanh": nn.Hardtanh,
            "identity": nn.Identity,
        }
        return Pointwise(self.activation) if callable(self.activation) else layers[self.activation]()

    def network(
        self,
        features: list[nn.Module],
        C: int,
        side: int,
        *,
        hidden: tuple[int, ...] = (),
        dropout: float = 0.0,
        largest: bool = False,
        scale: float | None = None,
    ) -> nn.Sequential:
        """Features, maps of C x side x side pixels, linear layers of `hidden` numbers each and one of the classes.

        dropout   the original's share, before every linear layer but the first of several; `self.dropout` overrules it
        largest   see `to_image`
        scale     of the scores; small ones let a network begin with a large learning rate
        """
        share = dropout if self.dropout is None else self.dropout
        head: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
        side = self.head_side(side, features)
        numbers = C * side * side
        for i, usual in enumerate(hidden, start=1):
            head[f"linear{i}"] = nn.Linear(numbers, numbers := self.channels(usual))
            head[f"activation{i}"] = self.pixel_activation()
            if share:
                head[f"dropout{i}"] = nn.Dropout(share)
        if share and not hidden:
            head["dropout"] = nn.Dropout(share)
        head["linear"] = nn.Linear(numbers, self.num_classes)
        if scale is not None:
            head["scale"] = Scale(scale)
        maps = self.to_image(side, largest)
        parts = {"features": nn.Sequential(*features), "maps": maps, "head": nn.Sequential(head)}
        return nn.Sequential(OrderedDict(parts))


@dataclass(frozen=True)
class ImageForm(Form):
    """A network on images, with torch's layers and `layer` in the place of nn.Conv2d."""

    layer: Callable[..., nn.Module]
    batch_norm: bool

    def _conv(self, C: int, O: int, k: int, stride: int = 1, padding: int | None = None) -> nn.Module:
        padding = k // 2 if padding is None else padding
        conv = self.layer(C, O, k, stride=stride, padding=padding, bias=not self.batch_norm)
        return start(conv, self.activation)

    def _norm(self, C: int) -> nn.Module:
        return nn.BatchNorm2d(C) if self.batch_norm else nn.Identity()

    def unit(
        self,
        C: int,
        O: int,
        k: int,
        *,
        stride: int = 1,
        padding: int | None = None,
        activate: bool = True,
        multiple: int = 1,
        pool: bool = False,
    ) -> nn.Module:
        activation = self.pixel_activation() if activate else nn.Identity()
        conv = self._conv(C, O, k, stride, padding)
        return Unit(nn.Sequential(conv, nn.MaxPool2d(2)) if pool else conv, self._norm(O), activation)

    def convolution(self, C: int, O: int, k: int, *, multiple: int = 1) -> nn.Module:
        return self._conv(C, O, k)

    def preactivated(self, C: int, O: int, k: int) -> nn.Module:
        return nn.Sequential(OrderedDict([*self._before(C).items(), ("conv", self._conv(C, O, k))]))

    def last_activation(self, C: int) -> nn.Module:
        return nn.Sequential(self._before(C))

    def _before(self, C: int) -> OrderedDict[str, nn.Module]:
        activation = self.pixel_activation()
        if isinstance(activation, nn.ReLU):
            activation.inplace = self.batch_norm  # without a norm it would overwrite maps that later layers read
        return OrderedDict(norm=self._norm(C), activation=activation)

    def max_pool(self, k: int = 2, *, padding: int = 0, multiple: int = 1) -> nn.Module:
        return nn.MaxPool2d(k, stride=2, padding=padding)

    def average_pool(self) -> nn.Module:
        return nn.AvgPool2d(2)

    @staticmethod  # a layer keeps it, and need not keep the form
    def concatenate(parts: list[Any]) -> Any:
        return torch.cat(parts, 1)

    def to_image(self, side: int, largest: bool = False) -> nn.Module:
        return nn.AdaptiveMaxPool2d(side) if largest else nn.AdaptiveAvgPool2d(side)


class OfBlocks(Form):
    """Shared by forms whose unit is a SpecNet block: it convolves first, and all pooling is done in the same way."""

    def convolution(self, C: int, O: int, k: int, *, multiple: int = 1) -> nn.Module:
        return self.unit(C, O, k, multiple=multiple)

    def preactivated(self, C: int, O: int, k: int) -> nn.Module:
        return self.unit(C, O, k)

    def last_activation(self, C: int) -> nn.Module:
        return nn.Identity()

    def average_pool(self) -> nn.Module:
        return self.max_pool()


@dataclass(frozen=True)
class PixelForm(OfBlocks, ImageForm):
    """A network of `snn.SpecNetPixelBlock2d`, each with its own ReLU and threshold; pooling is a stride."""

    def unit(
        self,
        C: int,
        O: int,
        k: int,
        *,
        stride: int = 1,
        padding: int | None = None,
        activate: bool = True,
        multiple: int = 1,
        pool: bool = False,
    ) -> nn.Module:
        stride = 2 * stride if pool else stride
        if activate:
            return self.layer(C, O, k, stride=stride)
        projection = self.layer(C, O, k, stride=stride, relu=False, beta=0.0)
        projection.is_projection = True  # type: ignore[assignment]
        return projection

    def max_pool(self, k: int = 2, *, padding: int = 0, multiple: int = 1) -> nn.Module:
        return Subsample()


@dataclass(frozen=True)
class SpectralForm(OfBlocks):
    """A network on half spectra (SpecNet): convolution, threshold and activation in one block.

    The block's order is the paper's, so DenseNet's units convolve first here too. `pooling` is "crop" or "stride".
    Batch norm, which the paper gives up, is left out unless batch_norm=True. Every `mixing`-th block has ReLU of
    pixels; at 0 no block has.
    """

    beta: float
    pooling: str = "crop"
    batch_norm: bool = False
    mixing: int = 0
    units: Iterator[int] = field(default_factory=lambda: count(1), compare=False)  # those with an activation, counted

    def unit(
        self,
        C: int,
        O: int,
        k: int,
        *,
        stride: int = 1,
        padding: int | None = None,
        activate: bool = True,
        multiple: int = 1,
        pool: bool = False,
    ) -> nn.Module:
        by_stride = pool and self.pooling == "stride"
        stride = 2 * stride if by_stride else stride
        block = self._block(C, O, k, stride, activate, multiple)
        return nn.Sequential(block, Crop(multiple)) if pool and not by_stride else block

    def _block(self, C: int, O: int, k: int, stride: int, activate: bool, multiple: int) -> nn.Module:
        fused = activate and not self.batch_norm and self.activation != AMPLITUDE
        if activate and self.mixing and next(self.units) % self.mixing == 0:
            return MixedUnit(snn.SpecNetPixelBlock2d(C, O, k, beta=0.0, stride=stride))
        # "amplitude" begins with the weights of tanh, which keep spectra above the threshold.
        activation: Any = "tanh" if self.activation == AMPLITUDE else self.activation
        activation, beta = (activation, self.beta) if activate else ("identity", 0.0)
        block = snn.SpecNetBlock2d(C, O, k, beta=beta, activation=activation, stride=stride, multiple=multiple)
        block.is_projection = not activate
        if fused or not activate:
            return block
        block.beta, block.activation, block.storage = 0.0, "identity", "dense"
        norm = snn.SpectralBatchNorm2d(O) if self.batch_norm else nn.Identity()
        return RepairedUnit(block, norm, SpectralActivation(self.beta, self.activation))

    def folds(self, strides: int) -> int:
        return strides if self.pooling == "stride" else 1

    def max_pool(self, k: int = 2, *, padding: int = 0, multiple: int = 1) -> nn.Module:
        return Subsample() if self.pooling == "stride" else Crop(multiple)

    @staticmethod  # a layer keeps it, and need not keep the form
    def concatenate(parts: list[Any]) -> Any:
        return HalfSpectrum.cat(parts)

    def to_image(self, side: int, largest: bool = False) -> nn.Module:
        return ToImage(side)

    def head_side(self, side: int, features: list[nn.Module]) -> int:
        """With strides the whole last map; with crops a side of 4 where the original takes the mean of each map.

        Blocks work on each frequency by itself, and a crop mixes none. So the mean of the last map would depend on the
        image's mean colours alone: every frequency that the head is to see must reach it.
        """
        if self.pooling == "crop":
            return FEWEST_FREQUENCIES if side == 1 else side
        left = 0
        for layer in nn.Sequential(*features).modules():
            if isinstance(layer, snn.SpecNetBlock2d | snn.SpecNetPixelBlock2d) and not layer.is_projection:
                (stride, _) = dispatch.wholes(layer.stride, 2, "stride", 1)
                if isinstance(layer, snn.SpecNetBlock2d) and not left:
                    left, _ = layer.padded_size((self.image_size, self.image_size))
                left //= stride
            elif isinstance(layer, Subsample):
                left //= 2
        return left


@torch.no_grad()
def start(conv: nn.Module, activation: str) -> nn.Module:
    """Draw the filters so that maps keep their variance (He et al. 2015), or deep nets without norm do not learn.

    For GELU they are drawn as for ReLU, which it resembles for large numbers. Every sibling of nn.Conv2d gets the same
    draw, so that twins begin alike for one seed. Other layers keep the filters that they have.
    """
    activation = "relu" if activation == "gelu" else activation
    if isinstance(conv, snn.SpectralParamConv2d):
        filters = torch.empty_like(conv.weight_hat)
        conv.set_filters(nn.init.kaiming_normal_(filters, nonlinearity=activation))  # type: ignore[arg-type]
    elif isinstance(conv, nn.Conv2d) and "weight" in conv._parameters:
        nn.init.kaiming_normal_(conv.weight, nonlinearity=activation)  # type: ignore[arg-type]
    else:
        return conv
    if isinstance(conv.bias, Tensor):
        nn.init.zeros_(conv.bias)
    return conv
