"""Curves and their axes: a still picture in a notebook, the same in plotly under a slider."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from specviz.extras import needs
from specviz.figures.colours import BLUE, on_page, pale
from specviz.figures.export import Still, sentence, table
from specviz.figures.page import TALL, USUAL, page_axis, page_layout
from specviz.figures.text import figure_for_plotly, without_mathematics

_NAMES_INSIDE = 3  # names that a still plot's legend shows among the curves; more of them would cover these


@dataclass(frozen=True)
class Line:
    """One curve: x (N,), y (N,), how it is drawn.

    dash        "none" draws points alone
    symbol      of the points, where there are any
    low, high   (N,) the band around the curve, such as a mean's spread; both or neither

    >>> sv.figures.Line("sine", np.arange(3), np.array([0.0, 1.0, 0.0])).colour == sv.figures.BLUE
    True
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
class LinePlot(Still):
    """Curves with their axes. A notebook shows one as a still picture.

    x_range, y_range  where a linear axis begins and ends, so that it stays while a slider moves; by the curves if None
    height            in pixels, with title and axes

    >>> t = np.linspace(0, 1, 100)
    >>> plot = sv.figures.LinePlot("A wave", "time, s", "height", [sv.figures.Line("sine", t, np.sin(2 * np.pi * t))])
    >>> plot
    LinePlot('A wave': sine)
    >>> len(plot.csv().splitlines())  # a heading, and a row for each point
    101
    """

    title: str
    x_title: str
    y_title: str
    lines: list[Line] = field(default_factory=list)
    log_x: bool = False
    log_y: bool = False
    x_range: tuple[float, float] | None = None
    y_range: tuple[float, float] | None = None
    height: int = USUAL

    def __repr__(self) -> str:
        return f"LinePlot({self.title!r}: {', '.join(line.name for line in self.lines)})"

    def still(self) -> Any:
        """The plot as a matplotlib figure."""
        with needs("lab"):  # not pyplot, which would start a GUI backend and keep every figure alive
            from matplotlib.figure import Figure

        size = (8.7, 3.2 + legend_height(self, 8.7))
        figure = Figure(figsize=size, dpi=80, layout="constrained", facecolor="white")
        draw_lines(figure.add_subplot(), self, width=8.7)
        return without_mathematics(figure)

    def alt_text(self) -> str:
        """Describe the plot: its title, its axes, and the first and last point of each curve."""
        curves = "; ".join(f"{line.name}: {_ends(line)}" for line in self.lines)
        return f"{sentence(self.title)} {self.y_title} over {self.x_title}. {curves or 'No curve'}."

    def plotly(self, dark: bool) -> dict[str, Any]:
        """The plot as plotly's `data` and `layout`."""
        traces = [trace for line in self.lines for trace in plotly_traces(line, dark)]
        return figure_for_plotly({"data": traces, "layout": plotly_layout(self, dark)})

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
    """Make a plotly layout for JupyterLab's own background, light or dark.

    >>> t = np.linspace(0, 1, 100)
    >>> plot = sv.figures.LinePlot("A wave", "time, s", "height", [sv.figures.Line("sine", t, np.sin(2 * np.pi * t))])
    >>> "xaxis" in sv.figures.plotly_layout(plot, dark=True)
    True
    """
    names = [line.name for line in plot.lines]
    kind = {True: "log", False: "linear"}
    x, y = ({"range": list(ends)} if ends else {} for ends in (plot.x_range, plot.y_range))
    tall = TALL - USUAL + plot.height
    return {
        **page_layout(plot.title, dark, plot.height, legend=names if len(names) > 1 else ()),
        "xaxis": {**page_axis(plot.x_title, dark), "type": kind[plot.log_x], **x},
        "yaxis": {**page_axis(plot.y_title, dark, tall), "type": kind[plot.log_y], "exponentformat": "power", **y},
    }


def plotly_traces(line: Line, dark: bool) -> list[dict[str, Any]]:
    """A curve as plotly's traces: its band, where it has one, then itself."""
    colour = on_page(line.colour, dark)
    x, y = line_points(line)
    symbol, size = {"circle": ("circle", 6), "star": ("star", 13), "diamond": ("diamond", 9)}[line.symbol]
    curve = {
        "type": "scatter",
        "x": x,
        "y": y,
        "name": line.name,
        "mode": "markers" if line.dash == "none" else "lines+markers" if line.markers else "lines",
        "line": {"color": colour, "dash": "solid" if line.dash == "none" else line.dash, "width": 2},
        "marker": {"symbol": symbol, "size": size},
    }
    if line.low is None:
        return [curve]
    x, y = band_points(line)
    band = {
        "type": "scatter",
        "x": x,
        "y": y,
        "mode": "lines",
        "line": {"width": 0},
        "fill": "toself",
        "fillcolor": pale(colour),
        "hoverinfo": "skip",
        "showlegend": False,
    }
    return [band, curve]


def _ends(line: Line) -> str:
    """Where a curve begins and ends, in words."""
    x, y = (np.asarray(values, dtype=np.float64) for values in (line.x, line.y))
    drawn = np.flatnonzero(np.isfinite(x) & np.isfinite(y))
    ends = [f"{y[at]:.3g} at {x[at]:.3g}" for at in drawn[[0, -1]]] if drawn.size else []
    if not ends:
        return "no points"
    return ends[0] if drawn.size == 1 else f"from {ends[0]} to {ends[1]}"


def line_points(line: Line) -> tuple[np.ndarray, np.ndarray]:
    """A curve's x and y as plotly takes them; what is not finite is a gap."""
    return _finite(line.x), _finite(line.y)


def band_points(line: Line) -> tuple[np.ndarray, np.ndarray]:
    """Once around the band: along its lower edge and back along the upper one. What is not finite is left out."""
    x, low, high = (np.asarray(v, dtype=np.float64) for v in (line.x, line.low, line.high))
    drawn = np.isfinite(x) & np.isfinite(low) & np.isfinite(high)
    x, low, high = x[drawn], low[drawn], high[drawn]
    return np.concatenate([x, x[::-1]]), np.concatenate([low, high[::-1]])


def _finite(values: Any) -> np.ndarray:
    # NaN and infinity are not JSON: plotly's front end would drop the whole message.
    numbers: np.ndarray = np.asarray(values, dtype=np.float64)
    finite = np.isfinite(numbers)
    if finite.all():
        return numbers
    gaps: np.ndarray = numbers.astype(object)
    gaps[~finite] = None
    return gaps


def legend_height(plot: LinePlot, width: float) -> float:
    """Inches that the legend takes below a still plot of so many inches; few names stand among the curves."""
    names = [line.name for line in plot.lines]
    return 0.0 if len(names) <= _NAMES_INSIDE else 0.16 * -(-len(names) // _legend_columns(names, width)) + 0.1


def _legend_columns(names: list[str], width: float) -> int:
    return min(max(int((width - 0.7) / (0.065 * max(map(len, names)) + 0.5)), 1), len(names))


def draw_lines(axes: Any, plot: LinePlot, width: float) -> None:
    """The plot on matplotlib's axes, in a figure of so many inches."""
    with needs("lab"):
        from matplotlib.transforms import ScaledTranslation

    styles = {"solid": "-", "dash": "--", "dot": ":", "none": "none"}
    symbols = {"circle": "o", "star": "*", "diamond": "D"}
    for line in plot.lines:
        style: dict[str, Any] = {"color": line.colour, "label": line.name, "linestyle": styles[line.dash]}
        if line.markers or line.dash == "none":
            style |= {"marker": symbols[line.symbol], "markersize": 11 if line.symbol == "star" else 6}
        axes.plot(line.x, line.y, **style)
        if line.low is not None:
            axes.fill_between(line.x, line.low, line.high, color=line.colour, alpha=0.18, linewidth=0)
    drawn = any(len(line.x) for line in plot.lines)  # an empty axis has no logarithm
    axes.set_xscale("log" if plot.log_x and drawn else "linear")
    axes.set_yscale("log" if plot.log_y and drawn else "linear")
    if plot.x_range:
        axes.set_xlim(*plot.x_range)
    if plot.y_range:
        axes.set_ylim(*plot.y_range)
    axes.set_title(plot.title, fontsize=10)
    axes.set_xlabel(plot.x_title, fontsize=8)
    axes.set_ylabel(plot.y_title, fontsize=8)
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.3)
    names = [line.name for line in plot.lines]
    if len(names) > _NAMES_INSIDE:
        below = axes.transAxes + ScaledTranslation(0, -0.42, axes.figure.dpi_scale_trans)
        place = {"loc": "upper left", "bbox_to_anchor": (0, 0), "bbox_transform": below, "borderaxespad": 0}
        axes.legend(fontsize=7, ncols=_legend_columns(names, width), frameon=False, **place)
    elif len(names) > 1:
        axes.legend(fontsize=7)
