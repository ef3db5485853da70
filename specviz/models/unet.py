"""The 3-D U-Net (Çiçek et al. 2016), for volumes whose every voxel has a class."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any, Literal

import torch
from spectral_kernels import dispatch
from torch import Tensor, nn

import specviz.nn as snn
from specviz.models.forms import FEWEST_CHANNELS
from specviz.models.network import check_numbers, whole

VolumeConvolution = Literal["spatial", "band-limited", "spectral-param"]

_CONVOLUTIONS: dict[str, tuple[Callable[..., nn.Module], Callable[..., nn.Module]]] = {  # and their transposes
    "spatial": (nn.Conv3d, nn.ConvTranspose3d),
    "band-limited": (snn.BandLimitedConv3d, snn.BandLimitedConvTranspose3d),
    "spectral-param": (snn.SpectralParamConv3d, nn.ConvTranspose3d),
}
_POOLINGS: dict[str, Callable[[], nn.Module]] = {
    "max": lambda: nn.MaxPool3d(2),
    "spectral": lambda: snn.SpectralPool3d(scale=0.5),
}


class UNet(nn.Module):
    """Down by pooling, then up by transposed convolutions, each joined with its level's maps from the way down.

    x (B, C, D, H, W) real -> (B, O, D, H, W) scores of each voxel

    >>> sv.models.unet3d(num_classes=4, width=0.1)(torch.rand(1, 1, 9, 16, 12)).shape
    torch.Size([1, 4, 9, 16, 12])
    """

    def __init__(self, down: list[nn.Module], pools: list[nn.Module], up: list[nn.Module], merge: list[nn.Module]):
        super().__init__()
        self.down, self.pools = nn.ModuleList(down), nn.ModuleList(pools)
        self.up, self.merge = nn.ModuleList(up), nn.ModuleList(merge)
        self.head: nn.Module = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        levels = []
        for stage, pool in zip(self.down, [*self.pools, None], strict=True):
            x = stage(x)
            if pool is not None:
                levels.append(x)
                x = pool(x)
        for up, merge in zip(self.up, self.merge, strict=True):
            beside = levels.pop()
            # An odd side is pooled as if it were one voxel shorter; output_size brings the voxel back.
            x = merge(torch.cat([beside, up(x, output_size=beside.shape[2:])], 1))
        y: Tensor = self.head(x)
        return y


def unet3d(
    num_classes: int = 2,
    *,
    in_channels: int = 1,
    width: float = 1.0,
    levels: int = 3,
    convolution: VolumeConvolution | Callable[..., nn.Module] = "spatial",
    pooling: Literal["max", "spectral"] = "max",
    compression: float | None = None,
    energy: float | None = None,
) -> UNet:
    """3-D U-Net: two convolutions a level with batch norm and ReLU, 64 channels at the top, 512 at the bottom.

    x (B, in_channels, D, H, W) real, sides of at least 2 ** levels -> (B, num_classes, D, H, W) scores of each voxel

    width        multiplies all channel counts (at least 4 are left): 0.25 runs on a laptop
    levels       how often the volume is halved; each doubles the channels
    convolution  "spatial", nn.Conv3d and nn.ConvTranspose3d; "band-limited", snn.BandLimitedConv3d and
                 snn.BandLimitedConvTranspose3d, but for the last of 1 x 1 x 1; "spectral-param",
                 snn.SpectralParamConv3d; or a function of nn.Conv3d's arguments that returns the layer
    pooling      "max", of 2 x 2 x 2 voxels, or "spectral", snn.SpectralPool3d to half the sides
    compression  share of the coefficients that band-limited convolutions leave out, by default 0
    energy       instead, of band-limited convolutions: each call keeps the band with this share of its volumes' energy.
                 The transposed ones, which have no energy mode, leave nothing out

    Çiçek, Abdulkadir, Lienkamp, Brox & Ronneberger (2016). Theirs convolves without padding and crops the maps that it
    joins; ours pads, so that every voxel has a score.

    >>> net = sv.models.unet3d(width=0.1, convolution="band-limited", compression=0.5, pooling="spectral")
    >>> net(torch.rand(1, 1, 8, 16, 16)).shape
    torch.Size([1, 2, 8, 16, 16])
    """
    num_classes, _, in_channels, width, _ = check_numbers("unet3d", num_classes, 1, in_channels, width)
    levels = whole("unet3d", "levels", levels)
    conv, transposed = _layers(convolution, {"compression": compression, "energy": energy})
    dispatch.one_of(pooling, "unet3d: pooling", _POOLINGS)

    def stage(C: int, middle: int, O: int) -> nn.Module:
        return nn.Sequential(*(part for a, b in ((C, middle), (middle, O)) for part in _unit(conv, a, b)))

    sides = [max(FEWEST_CHANNELS, round(64 * width)) * 2**level for level in range(levels + 1)]
    down = [stage(C, max(FEWEST_CHANNELS, O // 2), O) for C, O in pairwise([in_channels, *sides])]
    up = [transposed(C, C, 2, stride=2) for C in sides[:0:-1]]
    merge = [stage(C + 2 * C, C, C) for C in sides[-2::-1]]
    net = UNet(down, [_POOLINGS[pooling]() for _ in range(levels)], up, merge)
    net.head = nn.Conv3d(sides[0], num_classes, 1)
    return net


def _unit(conv: Callable[..., nn.Module], C: int, O: int) -> tuple[nn.Module, ...]:
    return conv(C, O, 3, padding=1), nn.BatchNorm3d(O), nn.ReLU(inplace=True)


def _layers(convolution: Any, options: dict[str, Any]) -> tuple[Callable[..., nn.Module], Callable[..., nn.Module]]:
    """The convolution and its transpose that a name stands for."""
    given = {name: value for name, value in options.items() if value is not None}
    if given and convolution != "band-limited":
        name, value = next(iter(given.items()))
        raise ValueError(
            f'unet3d: {name}={value} is for band-limited convolutions; add convolution="band-limited" '
            f"(it is {convolution!r}) or leave {name} out"
        )
    if callable(convolution):
        return convolution, nn.ConvTranspose3d
    if not isinstance(convolution, str) or convolution not in _CONVOLUTIONS:
        known = ", ".join(f'"{form}"' for form in _CONVOLUTIONS)
        raise ValueError(
            f"unet3d: convolution={convolution!r} is unknown; pick {known}, or give a function of nn.Conv3d's "
            "arguments that returns the layer"
        )
    conv, transposed = _CONVOLUTIONS[convolution]
    if not given:
        return conv, transposed
    band = {"compression": given["compression"]} if "compression" in given else {}
    return partial(conv, **given), partial(transposed, **band)
