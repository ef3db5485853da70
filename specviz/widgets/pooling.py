"""PoolingExplorer: what four ways to shrink a picture leave of it, side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import ipywidgets as ipw
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import specviz.functional as SF
from specviz.datasets import MAX_SIDE, luminance
from specviz.figures import BLUE, GREEN, ORANGE, PURPLE, Line, LinePlot, Panel, to_bytes
from specviz.widgets.explorer import Explorer, GridSlider, picture_bytes, reduce_shown, shown_factor

WAYS = ("spectral", "average", "max", "strided")
COLOURS = {"spectral": BLUE, "average": ORANGE, "max": GREEN, "strided": PURPLE}
ENLARGE = ("repeat", "smooth")

MAX_CURVE_SIDE = 512  # pixels; a larger picture's curve is that of its spectral pooling to this side
CURVE_POINTS = 16


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
    return (again - image).norm().item() / max(image.norm().item(), 1e-30)


def information_loss(
    image: Tensor, sides: Sequence[int], how: str = "repeat", ways: Sequence[str] = WAYS
) -> dict[str, np.ndarray]:
    """What pooling to some sizes and enlarging again loses: relative L2 error by way, NaN where a size does not exist.

    image (H, W); sides are heights in pixels, widths follow in proportion. As in Rippel et al. (2015), Fig. 2.
    """
    H, W = image.shape[-2:]
    losses: dict[str, list[float]] = {way: [] for way in ways}
    for h in sides:
        size = (h, max(1, round(h * W / H)))
        for way in ways:
            small = pooled(image, size, way)
            losses[way].append(math.nan if small is None else error(image, enlarged(small, (H, W), way, how)))
    return {way: np.array(values) for way, values in losses.items()}


class PoolingExplorer(Explorer):
    """A photograph, pooled four ways to the same size and enlarged again.

    image  whatever `datasets.photo_from` takes; it is made grey

    Controls: `size` (the pooled height in pixels; the width follows), `cutoff` (frequency dropout in the spectral
    pooling, 1 keeps all), `enlarge` ("repeat" or "smooth": how max, average and strided are brought up again; spectral
    pooling is undone by its own inverse). Facts: size (h, w), cutoff, enlarge, share_of_pixels, error_spectral,
    error_average, error_max (None where max pooling has no such size), error_strided (relative L2, each to the
    photograph), overshoot (how far spectral pooling leaves the photograph's range of brightness: ringing at edges) and
    mean_change (of the spectral one: 0 to rounding). Rippel, Snoek & Adams (2015).
    """

    label = "Pooling explorer"

    def __init__(self, image: Any, size: int = 64, cutoff: float = 1.0, enlarge: str = "repeat") -> None:
        super().__init__()
        self.size = GridSlider("pooled height", 1, MAX_SIDE, 1, 64, "pixels")
        self.cutoff = GridSlider("cut-off", 0.0, 1.0, 0.01, 1.0)
        self.enlarge = ipw.ToggleButtons(options=list(ENLARGE), style={"button_width": "80px"})
        self._map = torch.zeros(0)
        self._again: dict[str, Tensor | None] = {}
        self._losses: dict[str, dict[str, np.ndarray]] = {}
        self._sides = np.zeros(0)
        self._facts: dict[str, Any] = {}
        with self._silently():
            self.set(size=size, cutoff=cutoff, enlarge=enlarge)
        rows = ipw.VBox([self.size.row(), self.cutoff.row()])
        self._assemble(image, [rows, ipw.HBox([ipw.Label("enlarge the others"), self.enlarge])])

    def _controls(self) -> dict[str, Any]:
        return {"size": self.size, "cutoff": self.cutoff, "enlarge": self.enlarge}

    def _prepare(self, image: Tensor) -> None:
        self._map = luminance(image)
        self.size.resize(1, self._map.shape[0])
        H, W = self._map.shape
        shrink = min(1.0, MAX_CURVE_SIDE / max(H, W))
        small = SF.spectral_pool2d(self._map, (max(1, round(H * shrink)), max(1, round(W * shrink))))
        H = small.shape[0]
        # Below the whole size, where all lose nothing; with the sizes that max pooling has.
        halvings = [H >> k for k in range(1, H.bit_length()) if H % (1 << k) == 0 and H >> k >= H / 64]
        spread = np.geomspace(max(1, H / 64), 0.95 * H, CURVE_POINTS).round().astype(int).tolist()
        sides = sorted({h for h in (*halvings, *spread) if 1 <= h < H})
        self._sides = np.array(sides) / H
        self._losses = {how: information_loss(small, sides, how) for how in ENLARGE}

    def _describe(self) -> tuple[list[Panel], dict[str, np.ndarray]]:
        shown = [Panel("photo", "Photograph", "The picture as one grey map.", table="gray")]
        for way in WAYS:
            what = f"The picture after {way} pooling, enlarged to its size again."
            shown.append(Panel(way, way.capitalize(), what, table="gray"))
        return shown, {"photo": picture_bytes(self._map)}

    def _pooled_size(self) -> tuple[int, int]:
        H, W = self._map.shape
        h = min(round(self.size.real), H)
        return h, min(W, max(1, round(h * W / H)))

    def _frames(self) -> dict[str, Any]:
        size, cutoff, how = self._pooled_size(), self.cutoff.real, self.enlarge.value
        whole = (self._map.shape[0], self._map.shape[1])
        for way in WAYS:
            small = pooled(self._map, size, way, cutoff)
            self._again[way] = None if small is None else enlarged(small, whole, way, how)
        spectral = self._again["spectral"]
        assert spectral is not None
        low, high = self._map.min().item(), self._map.max().item()
        errors = {
            f"error_{way}": None if again is None else error(self._map, again) for way, again in self._again.items()
        }
        self._facts = {
            "size": size,
            "cutoff": cutoff,
            "enlarge": how,
            "share_of_pixels": size[0] * size[1] / self._map.numel(),
            **errors,
            "overshoot": max(spectral.max().item() - high, low - spectral.min().item(), 0.0),
            "mean_change": (spectral.mean() - self._map.mean()).item(),
        }
        # A size that max pooling does not have is shown as the middle grey it would not be mistaken for.
        frames = {
            way: to_bytes(reduce_shown(torch.full_like(self._map, 0.5) if again is None else again), 0.0, 1.0)
            for way, again in self._again.items()
        }
        return {"frames": frames, "facts": self._shown_facts()}

    def _shown_facts(self) -> list[list[str]]:
        f = self._facts
        return [
            ["pooled to", f"{f['size'][0]} × {f['size'][1]}", "pixels"],
            ["numbers kept", f"{100 * f['share_of_pixels']:.2f} %", "of the photograph's"],
            *(
                [
                    f"error, {way}",
                    "no such size" if f[f"error_{way}"] is None else f"{100 * f[f'error_{way}']:.2f} %",
                    "L2 distance to the photograph, as a share of its norm"
                    if f[f"error_{way}"] is not None
                    else "the windows do not tile the photograph",
                ]
                for way in WAYS
            ),
            [
                "spectral overshoots by",
                f"{f['overshoot']:.3f}",
                "in brightness, beyond the photograph's range: ringing",
            ],
        ]

    def _plots(self) -> list[LinePlot]:
        losses = self._losses.get(self.enlarge.value, {way: np.zeros(0) for way in WAYS})
        lines = []
        for way in WAYS:
            there = np.isfinite(losses[way])
            lines.append(
                Line(way, self._sides[there], np.maximum(losses[way][there], 1e-4), COLOURS[way], markers=way == "max")
            )
        share = self._facts["size"][0] / self._map.shape[0] if self._facts else 1.0
        now = self._facts.get("error_spectral", 1.0)
        lines.append(Line("now", np.array([share]), np.array([max(now, 1e-4)]), BLUE, markers=True))
        title = "What is lost by pooling to a size and enlarging again"
        return [LinePlot(title, "pooled side, as a share", "relative L2 error", lines, log_x=True, log_y=True)]

    def facts(self) -> dict[str, Any]:
        """Plain numbers for what is on screen; empty while no picture could be shown."""
        return dict(self._facts)

    def _full_size(self) -> tuple[int, int]:
        return self._map.shape[0], self._map.shape[1]

    def _probe(self, panel: str, x: int, y: int) -> str:
        if self.image is None:
            return ""
        factor = shown_factor(self._map)
        row, column = min(y * factor, self._map.shape[0] - 1), min(x * factor, self._map.shape[1] - 1)
        shown = self._map if panel == "photo" else self._again[panel]
        if shown is None:
            return (
                f"windows that tile this picture cannot make {self._facts['size'][0]} × {self._facts['size'][1]} pixels"
            )
        return f"row {row}, column {column}   {shown[row, column]:.4f}"
