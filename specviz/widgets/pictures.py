"""Pictures for the explorers: what is computed from them, how panels show them, what the pointer reads."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

from specviz.figures import MAX_SHOWN, to_bytes

T = TypeVar("T")
Reader = Callable[[int, int], str]  # the text for column x, row y of a frame

# How panels look that show the same kind of thing.
SIGNED: dict[str, Any] = {"table": "RdBu", "bar": "whole"}
DIFFERENCE: dict[str, Any] = {"table": "magma", "bar": "whole", "unit": "|difference|"}
MAGNITUDE: dict[str, Any] = {"table": "viridis", "bar": "whole", "powers_of_ten": True, "axes": "frequency"}
KEPT: dict[str, Any] = MAGNITUDE | {"table": "kept-dropped", "bar": "upper half"}
SLOPE: dict[str, Any] = SIGNED | {"low": -1.0, "unit": "slope of brightness"}


class Picture:
    """A picture that is explored, `map` (..., H, W), and what was made of it so far."""

    def __init__(self, map: Tensor) -> None:
        self.map = map
        self._made: dict[Any, Any] = {}

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        return self.map.shape[-2], self.map.shape[-1]

    def once(self, make: Callable[..., T], *choices: Any) -> T:
        """make(picture, *choices), computed once; anew each time if a choice is not hashable."""
        try:
            made: T | None = self._made.get((make, *choices))
        except TypeError:  # such as a reader's function that compares by its fields
            return make(self, *choices)
        if made is None:
            made = self._made[make, *choices] = make(self, *choices)
        return made


def pixel(image: Tensor) -> Reader:
    """Reads a picture (..., H, W), shown whole or reduced: row, column and each channel's value."""
    factor, (H, W) = shown_factor(image), image.shape[-2:]

    def read(x: int, y: int) -> str:
        row, column = min(y * factor, H - 1), min(x * factor, W - 1)
        values = image[..., row, column].reshape(-1).tolist()
        return f"row {row}, column {column}   {', '.join(f'{value:.4f}' for value in values)}"

    return read


def frequency(size: tuple[int, int], tell: Callable[[int, int], str], cycles: bool = False) -> Reader:
    """Reads a centred plane of (H, W) frequencies, shown whole or reduced: the frequency (u, v), and tell(u, v).

    cycles  gives the frequency also in cycles over the picture
    """
    factor, (H, W) = math.ceil(max(size) / MAX_SHOWN), size

    def read(x: int, y: int) -> str:
        u, v = min(y * factor, H - 1) - H // 2, min(x * factor, W - 1) - W // 2
        whole = f"({u:+d}, {v:+d}) cycles = " if cycles else ""
        return f"frequency {whole}({u / H:+.4f}, {v / W:+.4f}) cycles per pixel   {tell(u, v)}"

    return read


def shown_factor(image: Tensor) -> int:
    """How many pixels of a picture (..., H, W), along each side, become one pixel on screen."""
    return math.ceil(max(image.shape[-2:]) / MAX_SHOWN)


def reduce_shown(image: Tensor, how: Literal["mean", "max"] = "mean") -> np.ndarray:
    """A picture small enough to send to the browser: (..., H, W) -> at most 1024 a side, by mean or maximum."""
    factor = shown_factor(image)
    if factor == 1:
        return image.numpy()
    pool = torch.nn.functional.avg_pool2d if how == "mean" else torch.nn.functional.max_pool2d
    shown = pool(image.reshape(1, -1, *image.shape[-2:]).float(), factor, ceil_mode=True)
    return shown.reshape(*image.shape[:-2], *shown.shape[-2:]).to(image.dtype).numpy()


def picture_bytes(image: Tensor) -> np.ndarray:
    """A photograph as a frame, brightness clipped to 0..1: (H, W) -> (h, w) for the table "gray", (3, H, W) -> RGB."""
    frame = to_bytes(reduce_shown(image), 0.0, 1.0)
    return frame if frame.ndim == 2 else np.ascontiguousarray(np.moveaxis(frame, 0, -1))


def photo_bytes(picture: Picture) -> dict[str, np.ndarray]:
    """The still frame of the panel "photo"."""
    return {"photo": picture_bytes(picture.map)}


def centred_plane(half: Tensor, width: int) -> Tensor:
    """Spread numbers for a half spectrum's bins over the centred full plane: (H, W//2+1), symmetric -> (H, W)."""
    right = half[:, 1 : (width + 1) // 2].roll(-1, 0).flip((0, 1))
    plane: Tensor = torch.fft.fftshift(torch.cat([half, right], 1))
    return plane


def centred_levels(magnitude: Tensor, kept: Tensor, low: float, high: float) -> np.ndarray:
    """A plane for the table "kept-dropped", DC centred: the logarithm in 7 bits, what is kept in the eighth."""
    levels = to_bytes(magnitude.clamp_min(1e-30).log10().numpy(), low, high, levels=128)
    return np.fft.fftshift(levels | kept.numpy().astype(np.uint8) << 7)


def top(magnitude: Tensor, least: float = 1e-12) -> float:
    """The largest magnitude's logarithm, where a colour bar ends."""
    return math.log10(max(magnitude.max().item(), least))
