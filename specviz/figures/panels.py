"""Maps and spectra as pictures: what an explorer's panel shows, and how it is drawn without a browser."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from specviz.figures.colours import colour_table

MAX_SHOWN = 1024  # pixels a side that a panel sends to the browser; larger pictures are averaged down


@dataclass(frozen=True)
class Panel:
    """One picture of an explorer: what it shows and how its values become colours.

    table     name of a colour table for (H, W) uint8 frames, or None for (H, W, 3) RGB frames
    low, high values at the ends of the colour bar; `unit` labels it; log10 values are marked as powers of ten
    axes      "pixels"; "offset": pixels from the middle, of the frame as it is; "frequency": the centred plane;
              "half": the half plane as rfft2 stores it (cycles per pixel)
    ticks     labels to show at the ends and the middle of the horizontal axis, then of the vertical one
    axis      what the labels count
    small     True: less than half as wide, below one of a pair

    >>> panel = sv.figures.Panel("spectrum", "Spectrum", "Magnitudes", low=-5, high=0, powers_of_ten=True)
    >>> panel.bar_labels()
    ('1e-05', '1')
    """

    key: str
    title: str
    description: str
    table: str | None = None
    low: float = 0.0
    high: float = 1.0
    unit: str = ""
    bar: Literal["whole", "upper half", "none"] = "none"
    powers_of_ten: bool = False
    axes: Literal["pixels", "offset", "frequency", "half"] = "pixels"
    ticks: tuple[tuple[str, str, str], tuple[str, str, str]] | None = None
    axis: str = ""
    small: bool = False

    def bar_labels(self) -> tuple[str, str]:
        """The labels at the two ends of the colour bar."""
        values = (10**self.low, 10**self.high) if self.powers_of_ten else (self.low, self.high)
        return f"{values[0]:.2g}", f"{values[1]:.3g}"

    def bar_table(self) -> np.ndarray:
        """The colours along the bar: (256 or 128, 3) uint8."""
        assert self.table is not None
        return colour_table(self.table)[128 if self.bar == "upper half" else 0 :]


def draw_panel(axes: Any, panel: Panel, frame: np.ndarray) -> None:
    height, width = frame.shape[:2]
    extents: dict[str, tuple[float, float, float, float]] = {
        "frequency": (-0.5, 0.5, 0.5, -0.5),
        "half": (0, 0.5, 1, 0),
        "pixels": (0, width, height, 0),
        # Offset 0 is the middle of its pixel, which stands at width // 2.
        "offset": (-(width // 2) - 0.5, (width - 1) // 2 + 0.5, (height - 1) // 2 + 0.5, -(height // 2) - 0.5),
    }
    rgb = frame if panel.table is None else colour_table(panel.table)[frame]
    axes.imshow(rgb, aspect="auto", extent=extents[panel.axes])
    axes.set_box_aspect(height / width)
    if panel.axes == "half":
        axes.set_yticks([0, 0.5, 1], ["0", "±0.5", "0"])
    if panel.ticks:
        left, right, bottom, top = extents[panel.axes]
        axes.set_xticks([left, (left + right) / 2, right], panel.ticks[0])
        axes.set_yticks([top, (top + bottom) / 2, bottom], panel.ticks[1])
        axes.tick_params(length=3.5 if any(map(any, panel.ticks)) else 0)
    axes.set_title(panel.title, fontsize=10)
    axes.tick_params(labelsize=7)
    units = {"pixels": "pixels", "offset": "pixels from the middle"}
    axes.set_xlabel(panel.axis or units.get(panel.axes, "cycles per pixel"), fontsize=8)


def draw_bar(axes: Any, panel: Panel) -> None:
    axes.imshow(panel.bar_table()[None], aspect="auto", extent=(0, 1, 0, 1))
    axes.set_yticks([])
    axes.set_xticks([0, 1], panel.bar_labels(), fontsize=7)
    axes.set_xlabel(panel.unit, fontsize=8, labelpad=-5)
