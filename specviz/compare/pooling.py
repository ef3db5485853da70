"""Ways to shrink a picture, and what each loses of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import specviz.functional as SF

WAYS = ("spectral", "average", "max", "strided")


def pooled(image: Tensor, size: tuple[int, int], way: str, cutoff: float = 1.0) -> Tensor | None:
    """An image (H, W) or (C, H, W) pooled to `size` (h, w) one way; None where that way has no such size.

    way  "spectral"; "average", over windows that may overlap by a pixel; "max", over windows that tile the image, so
         only where they do; "strided", the pixel in the middle of every such window as "average" takes
    """
    (H, W), (h, w) = image.shape[-2:], size
    if way == "spectral":
        return SF.spectral_pool2d(image, size, cutoff=cutoff)
    if way == "average":
        return F.adaptive_avg_pool2d(image[None], size)[0] if image.ndim == 3 else _as_map(image, size)
    if way == "max":
        if H % h or W % w:
            return None
        return F.max_pool2d(image.reshape(1, -1, H, W), (H // h, W // w)).reshape(*image.shape[:-2], h, w)
    rows, columns = ((torch.arange(n) * 2 + 1) * N // (2 * n) for n, N in ((h, H), (w, W)))
    return image[..., rows[:, None], columns]


def _as_map(image: Tensor, size: tuple[int, int]) -> Tensor:
    return F.adaptive_avg_pool2d(image[None, None], size)[0, 0]


def enlarged(small: Tensor, size: tuple[int, int], way: str, how: str = "repeat") -> Tensor:
    """A pooled image brought up to `size` again: spectral by zero-padding its spectrum, the others as `how` says.

    how  "repeat" each pixel over the window it stands for, or "smooth", linear between windows' centres
    """
    if way == "spectral":
        return SF.spectral_pad2d(small, size)
    mode: dict[str, Any] = {"mode": "nearest"} if how == "repeat" else {"mode": "bilinear", "align_corners": False}
    lead = small.shape[:-2]
    return F.interpolate(small.reshape(1, -1, *small.shape[-2:]), size, **mode).reshape(*lead, *size)


def error(image: Tensor, again: Tensor) -> float:
    """L2 norm of the difference as a share of the image's; 0 for an image without any energy."""
    share: float = (again - image).norm().item() / max(image.norm().item(), 1e-30)
    return share


def information_loss(
    image: Tensor, sides: Sequence[int], how: str = "repeat", ways: Sequence[str] = WAYS
) -> dict[str, np.ndarray]:
    """What pooling to some sizes and enlarging again loses: relative L2 error by way, NaN where a size does not exist.

    image (H, W); sides are heights in pixels, widths follow in proportion. As in Rippel et al. (2015), Fig. 4.
    """
    H, W = image.shape[-2:]
    losses: dict[str, list[float]] = {way: [] for way in ways}
    for h in sides:
        size = (h, max(1, round(h * W / H)))
        for way in ways:
            small = pooled(image, size, way)
            losses[way].append(math.nan if small is None else error(image, enlarged(small, (H, W), way, how)))
    return {way: np.array(values) for way, values in losses.items()}
