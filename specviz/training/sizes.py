"""Pictures brought to another size before training."""

from __future__ import annotations

from dataclasses import replace

import torch
from spectral_kernels.dispatch import whole

import specviz.functional as SF
from specviz.datasets import Labelled

_AT_ONCE = 1000  # pictures; bounds the floats held besides


def at_side(data: Labelled, side: int) -> Labelled:
    """Bring pictures (N, C, H, W) uint8 to (N, C, side, side) uint8.

    A smaller picture gets a black border, equally wide on both sides up to a pixel; a larger one keeps its low
    frequencies (`SF.spectral_pool2d`, rounded). Raises ValueError for series, and for pictures that are larger than
    `side` along one axis and smaller along the other.

    >>> train = sv.datasets.load("fashion-mnist-small").take(10)
    >>> sv.training.at_side(train, 32).inputs.shape
    torch.Size([10, 1, 32, 32])
    """
    side = whole(side, "side", 1)
    if data.inputs.dtype != torch.uint8:
        raise ValueError(
            f"side={side} is for pictures; {data.name} holds {tuple(data.inputs.shape[1:])} float32 series"
        )
    height, width = data.inputs.shape[-2:]
    if (height, width) == (side, side):
        return data
    if max(height, width) <= side:
        top, left = (side - height) // 2, (side - width) // 2
        inputs = data.inputs.new_zeros(*data.inputs.shape[:2], side, side)
        inputs[..., top : top + height, left : left + width] = data.inputs
    elif min(height, width) >= side:
        inputs = torch.cat(
            [
                SF.spectral_pool2d(part.float(), (side, side)).round_().clamp_(0, 255).to(torch.uint8)
                for part in data.inputs.split(_AT_ONCE)
            ]
        )
    else:
        raise ValueError(f"{data.name}: pictures of {height} x {width} are both smaller and larger than side={side}")
    return replace(data, inputs=inputs)
