"""A layer of one class with the configuration of another."""

from __future__ import annotations

from typing import Any

import torch


class CannotReplace(ValueError):
    """A layer's `like` raises it, with the reason, for a layer whose place it cannot take."""


def empty_twin(kind: Any, conv: Any, **options: Any) -> Any:
    """A convolution of class `kind` configured as `conv`, its parameters without memory, to be replaced."""
    with torch.device("meta"):  # no memory and no random numbers for weights that are replaced at once
        return kind(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,
            conv.stride,
            conv.padding,
            conv.dilation,
            conv.groups,
            conv.bias is not None,
            conv.padding_mode,
            **options,
        )


def check_has_weight(conv: Any) -> None:
    """Raise CannotReplace for a convolution whose weight is made of other parameters, which would be lost."""
    if "weight" not in conv._parameters:
        raise CannotReplace("its weight is computed from other parameters (weight norm, pruning)")
