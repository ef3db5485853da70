"""Arrays to pictures: colour tables, display ranges, plot themes, and still pictures for readers without a kernel."""

from __future__ import annotations

import io
import textwrap
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

import numpy as np

MAX_SHOWN = 1024  # pixels a side that a panel sends to the browser; larger pictures are averaged down

# Okabe & Ito's colours, which stay apart under the common colour-vision deficiencies.
BLUE, ORANGE, GREEN, SKY, PURPLE = "#0072B2", "#D55E00", "#009E73", "#56B4E9", "#CC79A7"
GREY = "#5F5F5F"
# On a dark page they are lifted to the same contrast.
DARK_THEME_COLOURS = {
    BLUE: "#56B4E9",
    ORANGE: "#E69F00",
    GREEN: "#2FC89B",
    SKY: "#9AD4F5",
    PURPLE: "#E9A6CB",
    GREY: "#BDBDBD",
}


@cache
def colour_table(name: str) -> np.ndarray:
    """A colour map as 256 RGB entries: (256, 3) uint8. Any matplotlib name, or "kept-dropped".

    "kept-dropped" shows two pictures in one: entries 0..127 are dim greys for dropped coefficients,
    128..255 are viridis for kept ones.
    """
    from matplotlib import colormaps

    if name == "kept-dropped":
        grey = np.linspace(24, 150, 128).round().astype(np.uint8)
        return np.concatenate([np.stack([grey] * 3, 1), colour_table("viridis")[::2]])
    return (colormaps[name](np.linspace(0, 1, 256))[:, :3] * 255).round().astype(np.uint8)


def to_bytes(array: np.ndarray, low: float, high: float, levels: int = 256) -> np.ndarray:
    """Map [low, high] onto 0 .. levels-1, clipping outside; any shape -> uint8. The array must be finite."""
    scale = (levels - 1) / (high - low) if high > low else 0.0
    array = np.asarray(array)
    if not np.issubdtype(array.dtype, np.floating):
        array = array.astype(np.float64)  # unsigned integers would wrap around below `low`
    return np.clip((array - low) * scale + 0.5, 0, levels - 0.5).astype(np.uint8)


@dataclass(frozen=True)
class Panel:
    """One picture of an explorer: what it shows and how its values become colours.

    table     name of a colour table for (H, W) uint8 frames, or None for (H, W, 3) RGB frames
    low, high values at the ends of the colour bar; `unit` labels it; log10 values are marked as powers of ten
    axes      "pixels"; "offset": pixels from the middle, of the frame as it is; "frequency": the centred plane;
              "half": the half plane as rfft2 stores it (cycles per pixel)
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

    def bar_labels(self) -> tuple[str, str]:
        """What stands at the two ends of the colour bar."""
        values = (10**self.low, 10**self.high) if self.powers_of_ten else (self.low, self.high)
        return f"{values[0]:.2g}", f"{values[1]:.3g}"

    def bar_table(self) -> np.ndarray:
        """The colours along the bar: (256 or 128, 3) uint8."""
        assert self.table is not None
        return colour_table(self.table)[128 if self.bar == "upper half" else 0 :]


@dataclass(frozen=True)
class Line:
    """One curve: x (N,), y (N,), how it is drawn."""

    name: str
    x: np.ndarray
    y: np.ndarray
    colour: str = BLUE
    dash: Literal["solid", "dash", "dot"] = "solid"
    markers: bool = False


@dataclass(frozen=True)
class LinePlot:
    """Curves with their axes. A notebook shows one as a still picture."""

    title: str
    x_title: str
    y_title: str
    lines: list[Line] = field(default_factory=list)
    log_x: bool = False
    log_y: bool = False

    def __repr__(self) -> str:
        return f"LinePlot({self.title!r}: {', '.join(line.name for line in self.lines)})"

    def _repr_png_(self) -> bytes:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8.7, 3.2), dpi=80, layout="constrained", facecolor="white")
        _still_plot(figure.add_subplot(), self)
        return _png(figure)


@dataclass(frozen=True)
class Pictures:
    """Maps beside each other, each with its title, on one scale. A notebook shows them as a still picture.

    maps  title -> (H, W) real, array or tensor; low and high are the ends of the colour table
    """

    maps: dict[str, Any]
    low: float = 0.0
    high: float = 1.0
    table: str = "gray"
    unit: str = ""
    axes: Literal["pixels", "offset", "frequency", "half"] = "pixels"

    def __repr__(self) -> str:
        return f"Pictures({', '.join(map(repr, self.maps))})"

    def _repr_png_(self) -> bytes:
        scale: dict[str, Any] = {"table": self.table, "low": self.low, "high": self.high, "unit": self.unit}
        panels = [Panel(title, title, "", bar="whole", axes=self.axes, **scale) for title in self.maps]
        frames = {title: to_bytes(np.asarray(shown), self.low, self.high) for title, shown in self.maps.items()}
        return still_picture(panels, frames, [], "")


def plotly_layout(plot: LinePlot, dark: bool) -> dict[str, Any]:
    """A plotly layout that sits on JupyterLab's own background, light or dark."""
    ink, grid = ("#e0e0e0", "#555555") if dark else ("#222222", "#dddddd")
    axis = {"gridcolor": grid, "linecolor": ink, "zeroline": False, "showline": True, "ticks": "outside"}
    return {
        "template": "plotly_dark" if dark else "plotly_white",
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"color": ink, "size": 13},
        "title": {"text": plot.title, "font": {"size": 14}},
        "margin": {"l": 70, "r": 20, "t": 40, "b": 55},
        "height": 300,
        "legend": {"orientation": "h", "y": 1.0, "x": 1.0, "xanchor": "right", "yanchor": "bottom"},
        "xaxis": {**axis, "title": {"text": plot.x_title}, "type": "log" if plot.log_x else "linear"},
        "yaxis": {
            **axis,
            "title": {"text": plot.y_title},
            "type": "log" if plot.log_y else "linear",
            "exponentformat": "power",
        },
    }


def line_colour(line: Line, dark: bool) -> str:
    """The line's colour, lifted where the page is dark."""
    return DARK_THEME_COLOURS.get(line.colour, line.colour) if dark else line.colour


def still_picture(panels: list[Panel], frames: dict[str, np.ndarray], plots: list[LinePlot], caption: str) -> bytes:
    """What an explorer shows, as one PNG: the panels in a row, the plots below, the facts as caption."""
    from matplotlib.figure import Figure

    # Not pyplot: it would start a GUI backend and keep every figure alive.
    shown = [panel for panel in panels if panel.key in frames]
    columns = max(len(shown), 1)
    shares = [0.5 if panel.axes == "half" else 1.0 for panel in shown] or [1.0]  # half the columns, half the width
    aspects = (frames[p.key].shape[0] / frames[p.key].shape[1] * s for p, s in zip(shown, shares, strict=False))
    rows = [2.6 * min(max(aspects), 2.0) + 0.8, 0.12] if shown else [] if plots else [1.0]
    heights = rows + [2.2] * len(plots)
    width = 2.9 * sum(shares) if shown else 8.7
    lines = textwrap.wrap(caption, round(14.5 * width), break_on_hyphens=False, replace_whitespace=False) or [""]
    figure = Figure(
        figsize=(width, sum(heights) + 0.55 + 0.15 * len(lines)), dpi=80, layout="constrained", facecolor="white"
    )
    grid = figure.add_gridspec(len(heights), columns, height_ratios=heights, width_ratios=shares)
    for column, panel in enumerate(shown):
        _still_panel(figure.add_subplot(grid[0, column]), panel, frames[panel.key])
        if panel.bar != "none":
            _still_bar(figure.add_subplot(grid[1, column]), panel)
    for row, plot in enumerate(plots, len(rows)):
        _still_plot(figure.add_subplot(grid[row, :]), plot)
    figure.supxlabel("\n".join(lines), fontsize=9, parse_math=False)  # a file name may hold dollar signs
    return _png(figure)


def _png(figure: Any) -> bytes:
    out = io.BytesIO()
    options: dict[str, Any] = {"metadata": {"Software": None}, "pil_kwargs": {"optimize": True}}
    figure.savefig(out, format="png", **options)
    return out.getvalue()


def _still_panel(axes: Any, panel: Panel, frame: np.ndarray) -> None:
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
    axes.set_title(panel.title, fontsize=10)
    axes.tick_params(labelsize=7)
    units = {"pixels": "pixels", "offset": "pixels from the middle"}
    axes.set_xlabel(units.get(panel.axes, "cycles per pixel"), fontsize=8)


def _still_bar(axes: Any, panel: Panel) -> None:
    axes.imshow(panel.bar_table()[None], aspect="auto", extent=(0, 1, 0, 1))
    axes.set_yticks([])
    axes.set_xticks([0, 1], panel.bar_labels(), fontsize=7)
    axes.set_xlabel(panel.unit, fontsize=8, labelpad=-5)


def _still_plot(axes: Any, plot: LinePlot) -> None:
    styles = {"solid": "-", "dash": "--", "dot": ":"}
    for line in plot.lines:
        marker = "o" if line.markers else ""
        axes.plot(line.x, line.y, styles[line.dash], color=line.colour, label=line.name, marker=marker)
    drawn = any(len(line.x) for line in plot.lines)  # an empty axis has no logarithm
    axes.set_xscale("log" if plot.log_x and drawn else "linear")
    axes.set_yscale("log" if plot.log_y and drawn else "linear")
    axes.set_title(plot.title, fontsize=10)
    axes.set_xlabel(plot.x_title, fontsize=8)
    axes.set_ylabel(plot.y_title, fontsize=8)
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.3)
    if len(plot.lines) > 1:
        axes.legend(fontsize=7)
