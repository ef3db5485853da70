"""A network for time series."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

import specviz.nn as snn
from specviz.models.forms import FEWEST_CHANNELS
from specviz.models.network import check_numbers


def fcn(num_classes: int = 2, *, in_channels: int = 1, width: float = 1.0, compression: float = 0.0) -> nn.Sequential:
    """FCN: three band-limited 1-D convolutions of 8, 5 and 3 taps, batch norm, ReLU, global mean, linear.

    x (B, in_channels, L) real, any L -> (B, num_classes) scores, before a softmax

    width        multiplies the channels 128, 256, 128 (at least 4 are left)
    compression  share of the coefficients that the band discards, in [0, 1); at 0 it is the ordinary network

    Wang, Yan & Oates (2017), band-limited by Dziedzic et al. (2019).

    >>> sv.models.fcn(num_classes=2, compression=0.5)(torch.rand(4, 1, 100)).shape
    torch.Size([4, 2])
    """
    num_classes, _, in_channels, width, _ = check_numbers("fcn", num_classes, 1, in_channels, width)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    C = in_channels
    for i, (usual, taps) in enumerate(((128, 8), (256, 5), (128, 3)), 1):
        O = max(FEWEST_CHANNELS, round(usual * width))
        layers[f"conv{i}"] = snn.BandLimitedConv1d(C, O, taps, padding="same", bias=False, compression=compression)
        layers[f"norm{i}"], layers[f"relu{i}"] = nn.BatchNorm1d(O), nn.ReLU(inplace=True)
        C = O
    layers["mean"], layers["flatten"] = nn.AdaptiveAvgPool1d(1), nn.Flatten()
    layers["linear"] = nn.Linear(C, num_classes)
    return nn.Sequential(layers)
