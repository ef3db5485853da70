"""Ways to shrink an image, and how much of it each loses."""

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
    """Pool an image (H, W) or (C, H, W) to `size` (h, w) in one way; None if that way cannot give this size.

    way     "spectral"; "average", over windows that may overlap by a pixel; "max", only where h and w divide H and W,
            so that its windows tile the image; "strided", the middle pixel of each window of "average"
    cutoff  of "spectral", see `SF.spectral_pool2d`
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
    """Enlarge a pooled image to `size` again: "spectral" by zero-padding its spectrum, the other ways as `how` says.

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
    """Pool to some sizes and enlarge again: {way: relative L2 error for each side}, NaN if a way has no such size.

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
