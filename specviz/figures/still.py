"""An explorer's view as one still picture, for readers without a kernel and for export."""

from __future__ import annotations

import textwrap
from typing import Any, Literal

import numpy as np

from specviz.extras import needs
from specviz.figures.export import as_bytes
from specviz.figures.lines import LinePlot, draw_lines, legend_height
from specviz.figures.page import USUAL
from specviz.figures.panels import Panel, draw_bar, draw_panel
from specviz.figures.text import without_mathematics

Arranged = Literal["row", "pairs", "strip", "left"]
_IN_A_ROW = 5  # panels; of more, three


def still_picture(
    panels: list[Panel],
    frames: dict[str, np.ndarray],
    plots: list[LinePlot],
    caption: str,
    kind: Literal["png", "svg"] = "png",
    arranged: Arranged = "row",
) -> bytes:
    r"""Draw what an explorer shows, as the bytes of a file.

    >>> panel = sv.figures.Panel("map", "A map", "One map of zeros", table="viridis")
    >>> sv.figures.still_picture([panel], {"map": np.zeros((32, 32), dtype=np.uint8)}, [], "share kept: 1 %")[:4]
    b'\x89PNG'
    """
    draw = {"row": still_figure, "pairs": _pairs, "strip": _strip, "left": _left}[arranged]
    return as_bytes(draw(panels, frames, plots, caption), kind)


def still_figure(panels: list[Panel], frames: dict[str, np.ndarray], plots: list[LinePlot], caption: str) -> Any:
    """An explorer's view as a matplotlib figure: panels in a row, the plots below, facts as caption."""
    with needs("lab"):  # not pyplot, which would start a GUI backend and keep every figure alive
        from matplotlib.figure import Figure

    shown = [panel for panel in panels if panel.key in frames]
    rows = _rows(shown)
    columns = max(map(len, rows), default=1)
    shares = [0.5 if panel.axes == "half" else 1.0 for panel in shown[:columns]] or [1.0]  # half the columns and width
    heights = [] if shown or plots else [1.0]
    for row in rows:
        aspect = max(_aspect(frames[p.key]) * s for p, s in zip(row, shares, strict=False))
        heights += [2.6 * min(aspect, 2.0) + 0.8, 0.12]
    width = 2.9 * sum(shares) if shown else 8.7
    first = len(heights)
    tall = [2.4 * plot.height / USUAL for plot in plots]
    heights += [inches + legend_height(plot, width, inches) for plot, inches in zip(plots, tall, strict=True)]
    figure = _captioned(Figure, width, sum(heights), caption)
    grid = figure.add_gridspec(len(heights), columns, height_ratios=heights, width_ratios=shares)
    for at, row in enumerate(rows):
        for column, panel in enumerate(row):
            draw_panel(figure.add_subplot(grid[2 * at, column]), panel, frames[panel.key])
            if panel.bar != "none":
                draw_bar(figure.add_subplot(grid[2 * at + 1, column]), panel)
    for at, plot in enumerate(plots):
        draw_lines(figure.add_subplot(grid[first + at, :]), plot, width, tall[at])
    return without_mathematics(figure)


def _rows(shown: list[Panel]) -> list[list[Panel]]:
    """Panels in one row, or in several of three where one would be too wide for its letters to be read."""
    each = len(shown) if len(shown) <= _IN_A_ROW else 3
    return [shown[i : i + each] for i in range(0, len(shown), max(each, 1))]


def _pairs(panels: list[Panel], frames: dict[str, np.ndarray], plots: list[LinePlot], caption: str) -> Any:
    """Panels large, two in a row, and their facts; explorers of such panels have no plots."""
    with needs("lab"):
        from matplotlib.figure import Figure

    rows = [panels[i : i + 2] for i in range(0, len(panels), 2)]
    tall = [max(_aspect(frames[p.key]) * (0.6 if p.small else 1.0) for p in row) for row in rows]
    heights = [part for aspect in tall for part in (4.0 * aspect + 0.5, 0.12)]
    figure = _captioned(Figure, 8.7, sum(heights), caption)
    grid = figure.add_gridspec(len(heights), 2, height_ratios=heights)
    for at, row in enumerate(rows):
        for column, panel in enumerate(row):
            draw_panel(figure.add_subplot(grid[2 * at, column]), panel, frames[panel.key])
            if panel.bar != "none":
                draw_bar(figure.add_subplot(grid[2 * at + 1, column]), panel)
    return without_mathematics(figure)


def _strip(panels: list[Panel], frames: dict[str, np.ndarray], plots: list[LinePlot], caption: str) -> Any:
    """Panels small, all in one row, with their words in small type; the plots below."""
    with needs("lab"):
        from matplotlib.figure import Figure

    tall = [2.4 * plot.height / USUAL for plot in plots]
    heights = [8.7 / len(panels) * max(_aspect(frames[panel.key]) for panel in panels) + 0.5]
    heights += [inches + legend_height(plot, 8.7, inches) for plot, inches in zip(plots, tall, strict=True)]
    figure = _captioned(Figure, 8.7, sum(heights), caption)
    grid = figure.add_gridspec(len(heights), len(panels), height_ratios=heights)
    for column, panel in enumerate(panels):
        axes = figure.add_subplot(grid[0, column])
        draw_panel(axes, panel, frames[panel.key])
        axes.set_title(panel.title, fontsize=7, loc="left")
        axes.set_xlabel(f"{panel.axis}\n{panel.unit}", fontsize=7, loc="left")
    for row, plot in enumerate(plots, 1):
        draw_lines(figure.add_subplot(grid[row, :]), plot, 8.7, tall[row - 1])
    return without_mathematics(figure)


def _left(panels: list[Panel], frames: dict[str, np.ndarray], plots: list[LinePlot], caption: str) -> Any:
    """One panel, the plots on its right."""
    with needs("lab"):
        from matplotlib.figure import Figure

    tall = [2.4 * plot.height / USUAL for plot in plots]
    heights = [inches + legend_height(plot, 6.0, inches) for plot, inches in zip(plots, tall, strict=True)]
    figure = _captioned(Figure, 10.5, sum(heights), caption)
    grid = figure.add_gridspec(len(heights), 2, height_ratios=heights, width_ratios=(2, 3))
    for panel in panels[:1]:
        draw_panel(figure.add_subplot(grid[:, 0]), panel, frames[panel.key])
    for row, plot in enumerate(plots):
        draw_lines(figure.add_subplot(grid[row, 1]), plot, 6.0, tall[row])
    return without_mathematics(figure)


def _aspect(frame: np.ndarray) -> float:
    height, width = frame.shape[:2]
    return float(height / width)


def _captioned(make: Any, width: float, height: float, caption: str) -> Any:
    """An empty figure of so many inches, and its caption below."""
    lines = textwrap.wrap(caption, round(14.5 * width), break_on_hyphens=False, replace_whitespace=False) or [""]
    size = (width, height + 0.55 + 0.15 * len(lines))
    figure = make(figsize=size, dpi=80, layout="constrained", facecolor="white")
    figure.supxlabel("\n".join(lines), fontsize=9, parse_math=False)  # a file name may hold dollar signs
    return figure
