"""A control: what the lowest frequencies alone are good for."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

import specviz.nn as snn
from specviz.models.network import check_numbers, whole


def mlp(
    num_classes: int = 10,
    *,
    image_size: int = 32,
    in_channels: int = 3,
    side: int = 5,
    hidden: Sequence[int] = (120, 84),
) -> nn.Sequential:
    """Linear layers with tanh on an image's lowest frequencies: a thumbnail, by spectral pooling.

    x (B, in_channels, image_size, image_size) real -> (B, num_classes) scores, before a softmax

    side    of the thumbnail in pixels, at most image_size: with 5 it sees what LeNet sees as a SpecNet that crops
    hidden  numbers of each hidden layer; LeNet's by default

    The control for networks that see few frequencies: whatever they do better is due to their convolutions.

    >>> sv.models.mlp(side=4)(torch.randn(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """
    num_classes, image_size, in_channels, _, _ = check_numbers("mlp", num_classes, image_size, in_channels)
    if (side := whole("mlp", "side", side)) > image_size:
        raise ValueError(f"mlp: side={side} is more than image_size={image_size}")
    layers: OrderedDict[str, nn.Module] = OrderedDict(pool=snn.SpectralPool2d(side), flatten=nn.Flatten())
    numbers = in_channels * side * side
    for i, count in enumerate(hidden, 1):
        layers[f"linear{i}"] = nn.Linear(numbers, numbers := whole("mlp", "hidden", count))
        layers[f"activation{i}"] = nn.Tanh()
    layers["linear"] = nn.Linear(numbers, num_classes)
    return nn.Sequential(layers)
