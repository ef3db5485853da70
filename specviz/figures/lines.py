"""Curves and their axes: a still picture in a notebook, the same in plotly under a slider."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from specviz.figures.colours import BLUE
from specviz.figures.export import as_bytes, table


@dataclass(frozen=True)
class Line:
    """One curve: x (N,), y (N,), how it is drawn.

    dash        "none" draws points alone
    symbol      of the points, where there are any
    low, high   (N,) the band around the curve, such as a mean's spread; both or neither
    """

    name: str
    x: np.ndarray
    y: np.ndarray
    colour: str = BLUE
    dash: Literal["solid", "dash", "dot", "none"] = "solid"
    markers: bool = False
    symbol: Literal["circle", "star", "diamond"] = "circle"
    low: np.ndarray | None = None
    high: np.ndarray | None = None

    def __post_init__(self) -> None:
        if (self.low is None) != (self.high is None):
            raise ValueError(f"{self.name}: a band has low and high; give both or neither")


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

    def still(self) -> Any:
        """The plot as a matplotlib figure."""
        from matplotlib.figure import Figure  # not pyplot: it would start a GUI backend and keep every figure alive

        figure = Figure(figsize=(8.7, 3.2), dpi=80, layout="constrained", facecolor="white")
        draw_lines(figure.add_subplot(), self)
        return figure

    def _repr_png_(self) -> bytes:
        return as_bytes(self.still(), "png")

    def csv(self) -> str:
        """The curves' points, one a row."""
        bands = any(line.low is not None for line in self.lines)
        rows = [["curve", self.x_title, self.y_title, *(["low", "high"] if bands else [])]]
        for line in self.lines:
            columns = [line.x, line.y]
            if bands:
                gap = np.full(len(line.x), np.nan)
                columns += [gap if edge is None else edge for edge in (line.low, line.high)]
            rows += [[line.name, *point] for point in zip(*columns, strict=True)]
        return table(rows)


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
        "height": 320,
        # Below the plot: beside the title it would run into it where the window is narrow.
        "legend": {"orientation": "h", "x": 0.0, "xanchor": "left", "y": -0.22, "yanchor": "top"},
        "xaxis": {**axis, "title": {"text": plot.x_title}, "type": "log" if plot.log_x else "linear"},
        "yaxis": {
            **axis,
            "title": {"text": plot.y_title},
            "type": "log" if plot.log_y else "linear",
            "exponentformat": "power",
        },
    }


def draw_lines(axes: Any, plot: LinePlot) -> None:
    """The plot on matplotlib's axes."""
    styles = {"solid": "-", "dash": "--", "dot": ":", "none": ""}
    symbols = {"circle": "o", "star": "*", "diamond": "D"}
    for line in plot.lines:
        style: dict[str, Any] = {"color": line.colour, "label": line.name}
        if line.markers or line.dash == "none":
            style |= {"marker": symbols[line.symbol], "markersize": 11 if line.symbol == "star" else 6}
        axes.plot(line.x, line.y, styles[line.dash], **style)
        if line.low is not None:
            axes.fill_between(line.x, line.low, line.high, color=line.colour, alpha=0.18, linewidth=0)
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
