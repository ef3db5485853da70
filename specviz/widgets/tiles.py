"""Several channels of a layer beside each other, as one frame that a click picks from."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, max_pool2d

from specviz.figures import colour_table, to_bytes
from specviz.spectra import HalfSpectrum
from specviz.widgets.pictures import centred_plane

_SMALLEST, _LARGEST = 200, 1024  # pixels of all tiles along a side
_DECADES = 5  # of magnitudes that are shown
_GAP, _CHOSEN = (128, 128, 128), (213, 94, 0)


def look_of(maps: Tensor) -> dict[str, Any]:
    """A panel's colours for maps (..., H, W): grey where none is negative, else red and blue about zero."""
    magnitudes = maps.abs().flatten()
    magnitudes = magnitudes[:: max(1, len(magnitudes) >> 18)]
    high = float(magnitudes.quantile(0.998)) or float(magnitudes.max()) or 1.0
    if maps.min() < 0:
        return {"table": "RdBu", "low": -high, "high": high}
    return {"table": "gray", "low": 0.0, "high": high}


class Tiles:
    """Maps (N, H, W) in rows and columns, of a series (N, 1, L) below each other; the chosen one has a coloured edge.

    chosen  the index of the chosen map
    first   the channel of the first map
    """

    def __init__(self, maps: Tensor, chosen: int, first: int) -> None:
        count, H, W = maps.shape
        self.tiled, self.chosen, self.first = maps, chosen, first
        self.columns = 1 if H == 1 else math.ceil(math.sqrt(count))
        self.reduced = math.ceil(max(H, W) * self.columns / _LARGEST)
        h, w = math.ceil(H / self.reduced), math.ceil(W / self.reduced)
        self.repeated = (1, 1) if H == 1 else (max(1, _SMALLEST // (self.columns * max(h, w))),) * 2
        if H == 1:
            across = max(1, _SMALLEST // w)
            self.repeated = max(1, round(0.6 * across * w / count)), across
        self.size = h * self.repeated[0], w * self.repeated[1]
        self.gap = max(2, max(self.size) * self.columns // 110) if H > 1 else max(2, self.size[1] // 110)

    def maps(self) -> np.ndarray:
        """The maps as they are, in common colours: (h, w, 3) uint8."""
        look = look_of(self.tiled)
        levels = to_bytes(self._shown(self.tiled, "mean").numpy(), look["low"], look["high"])
        return self._laid(colour_table(look["table"])[levels])

    def spectra(self) -> np.ndarray:
        """The logarithms of their coefficients' magnitudes, zero frequency in each one's middle."""
        X = HalfSpectrum.of(self.tiled)
        logs = X.values.abs().clamp_min(1e-30).log10()
        logs = torch.stack([centred_plane(each, X.size[1]) for each in logs])
        high = max(float(logs.max()), -20.0)
        levels = to_bytes(self._shown(logs, "max").numpy(), high - _DECADES, high)
        return self._laid(colour_table("viridis")[levels])

    def _shown(self, maps: Tensor, how: str) -> Tensor:
        if self.reduced > 1:
            pool = avg_pool2d if how == "mean" else max_pool2d
            kernel = (min(self.reduced, maps.shape[-2]), self.reduced)
            maps = pool(maps[:, None], kernel, ceil_mode=True)[:, 0]
        return maps.repeat_interleave(self.repeated[0], 1).repeat_interleave(self.repeated[1], 2)

    def _laid(self, tiles: np.ndarray) -> np.ndarray:
        (h, w), gap = self.size, self.gap
        rows = math.ceil(len(tiles) / self.columns)
        frame = np.empty((rows * (h + gap) + gap, self.columns * (w + gap) + gap, 3), np.uint8)
        frame[:] = _GAP
        for place in (self.chosen, *range(len(tiles))):
            top, left = (place // self.columns) * (h + gap), (place % self.columns) * (w + gap)
            if place == self.chosen:
                frame[top : top + h + 2 * gap, left : left + w + 2 * gap] = _CHOSEN
            frame[top + gap : top + gap + h, left + gap : left + gap + w] = tiles[place]
        return frame

    def place(self, x: int, y: int) -> int:
        """Which map is at a frame's pixel, or nearest to it."""
        row, column = (
            min(at // (n + self.gap), most) for at, n, most in zip((y, x), self.size, self._last, strict=True)
        )
        return min(row * self.columns + column, len(self.tiled) - 1)

    @property
    def _last(self) -> tuple[int, int]:
        return math.ceil(len(self.tiled) / self.columns) - 1, self.columns - 1

    def pick(self, x: int, y: int) -> dict[str, Any]:
        """The channel that a click chooses."""
        return {"channel": self.first + self.place(x, y)}

    def name(self, x: int, y: int) -> str:
        """Whose tile is under the pointer."""
        return f"channel {self.first + self.place(x, y)}"

    def read(self, x: int, y: int) -> str:
        """The channel, row, column and value under the pointer."""
        at, (_, H, W) = self.place(x, y), self.tiled.shape
        own = [
            (pixel - self.gap - index * (n + self.gap)) // times * self.reduced
            for pixel, index, n, times in zip((y, x), divmod(at, self.columns), self.size, self.repeated, strict=True)
        ]
        row, column = min(max(own[0], 0), H - 1), min(max(own[1], 0), W - 1)
        return f"{self.name(x, y)}   row {row}, column {column}   {float(self.tiled[at, row, column]):.4f}"
