"""Curves and their axes: a still picture in a notebook, the same in plotly under a slider."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import compress
from typing import Any, Literal, NamedTuple

import numpy as np

from specviz.extras import needs
from specviz.figures.colours import BLUE, on_page, pale
from specviz.figures.export import Still, sentence, table
from specviz.figures.names import Curve, Place, places
from specviz.figures.page import TALL, USUAL, page_axis, page_layout
from specviz.figures.text import figure_for_plotly, without_mathematics

Symbol = Literal["circle", "square", "triangle-up", "x", "diamond", "cross", "star"]
# As plotly names them: as matplotlib does, and how large either draws them, in pixels and points.
_SYMBOLS: dict[Symbol, tuple[str, int, int]] = {
    "circle": ("o", 7, 5),
    "square": ("s", 7, 5),
    "triangle-up": ("^", 9, 6),
    "x": ("X", 8, 6),
    "diamond": ("D", 9, 6),
    "cross": ("P", 8, 6),
    "star": ("*", 13, 11),
}
_SPARSE = 6  # symbols along a curve that has none at its points
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_NAME_SIZE, _NAME_HEIGHT = 7, 0.14  # points, and inches, of a curve's name in a still plot
_SAMPLE = 0.2  # inches of the curve that stand before it


@dataclass(frozen=True)
class Line:
    """One curve: x (N,), y (N,), how it is drawn.

    dash        "none" draws only points
    symbol      of the points; None: each curve of a plot gets a different one
    texts       (N,) the name of each point, shown under the pointer
    low, high   (N,) the band around the curve, such as a mean's spread; both or neither
    thin        half as wide, so that a curve under it is seen on both sides

    >>> sv.figures.Line("sine", np.arange(3), np.array([0.0, 1.0, 0.0])).colour == sv.figures.BLUE
    True
    """

    name: str
    x: np.ndarray
    y: np.ndarray
    colour: str = BLUE
    dash: Literal["solid", "dash", "dot", "none"] = "solid"
    markers: bool = False
    symbol: Symbol | None = None
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    texts: tuple[str, ...] = ()
    thin: bool = False

    def __post_init__(self) -> None:
        if (self.low is None) != (self.high is None):
            raise ValueError(f"{self.name}: a band has low and high; give both or neither")


@dataclass(frozen=True)
class LinePlot(Still):
    """Curves with their axes. A notebook shows one as a still picture.

    x_range, y_range  the ends of a linear axis, fixed while a slider moves; None: the axis follows the curves
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

        width, height = 8.7, 3.2 * self.height / USUAL
        below = legend_height(self, width, height)
        figure = Figure(figsize=(width, height + below), dpi=80, layout="constrained", facecolor="white")
        draw_lines(figure.add_subplot(), self, width, height)
        return without_mathematics(figure)

    def alt_text(self) -> str:
        """Describe the plot: its title, its axes, and the first and last point of each curve."""
        curves = "; ".join(f"{line.name}: {_ends(line)}" for line in self.lines)
        return f"{sentence(self.title)} {self.y_title} over {self.x_title}. {curves or 'No curve'}."

    def plotly(self, dark: bool) -> dict[str, Any]:
        """The plot as plotly's `data` and `layout`."""
        traces = [trace for marked in marks(self.lines) for trace in plotly_traces(marked, dark)]
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
    x, y = ({"range": list(ends)} if ends else {} for ends in (plot.x_range, plot.y_range))
    return {
        **page_layout(plot.title, dark, plot.height, legend=len(plot.lines) > 1),
        "xaxis": {**page_axis(plot.x_title, dark), **plotly_scale(plot, "x"), **x},
        "yaxis": {**page_axis(plot.y_title, dark, TALL - USUAL + plot.height), **plotly_scale(plot, "y"), **y},
    }


def plotly_scale(plot: LinePlot, axis: Literal["x", "y"]) -> dict[str, Any]:
    """Linear or logarithmic, and of the latter its ticks."""
    scale = log_scale(plot, axis)
    if scale is None:
        return {"type": "linear"}
    return {"type": "log", "dtick": scale.dtick, "tickformat": "~g" if scale.plain else ""} | {
        "exponentformat": "power"
    }


class LogScale(NamedTuple):
    """Where a logarithmic axis has its ticks.

    digits  the first digits of the numbers that have one; none of an axis so short that these would be too few
    every   decades from one to the next
    plain   whether these are written as 0.1, 1, 10, or as powers of ten
    """

    digits: tuple[int, ...]
    every: int
    plain: bool

    @property
    def dtick(self) -> str | int | None:
        """As plotly says it."""
        return None if not self.digits else "D2" if len(self.digits) > 1 else self.every


def log_scale(plot: LinePlot, axis: Literal["x", "y"]) -> LogScale | None:
    """The ticks of an axis, by what is drawn along it: decades, and 2 and 5 between where it spans less than two."""
    if not (plot.log_x if axis == "x" else plot.log_y):
        return None
    values = [np.asarray(getattr(line, axis), dtype=np.float64) for line in plot.lines]
    drawn = np.concatenate([*values, [1.0]]) if not any(map(len, values)) else np.concatenate(values)
    drawn = drawn[np.isfinite(drawn) & (drawn > 0)]
    low, high = (float(drawn.min()), float(drawn.max())) if drawn.size else (1.0, 1.0)
    decades = np.log10(high / low)
    digits = () if decades < 0.7 else (1, 2, 5) if decades < 2 else (1,)
    return LogScale(digits, max(1, round(np.ceil(decades / 7))), low > 1e-5 and high < 1e6)


class Marked(NamedTuple):
    """A curve of a plot, and its symbol; `sparse` where that stands at some places alone, to tell it from others."""

    line: Line
    symbol: Symbol
    sparse: bool


def marks(lines: Sequence[Line]) -> list[Marked]:
    """The curves' symbols: a colour alone does not tell everybody one from another."""
    own = {line.symbol for line in lines}
    free = itertools.cycle([symbol for symbol in _SYMBOLS if symbol not in own and symbol != "star"])
    bare: list[str] = [line.dash for line in lines if not line.markers and line.dash != "none"]
    marked = []
    for line in lines:
        sparse = not line.markers and bare.count(line.dash) > 1 and line.dash != "none"
        takes_one = line.symbol is None and (sparse or line.markers or line.dash == "none")
        marked.append(Marked(line, next(free) if takes_one else line.symbol or "circle", sparse))
    return marked


def plotly_traces(marked: Marked, dark: bool) -> list[dict[str, Any]]:
    """A curve as plotly's traces: its band, where it has one, then itself."""
    line, symbol, sparse = marked
    colour = on_page(line.colour, dark)
    x, y = line_points(line)
    curve: dict[str, Any] = {
        "type": "scatter",
        "x": x,
        "y": y,
        "name": line.name,
        "mode": "markers" if line.dash == "none" else "lines+markers" if line.markers or sparse else "lines",
        "line": {
            "color": colour,
            "dash": "solid" if line.dash == "none" else line.dash,
            "width": 1 if line.thin else 2,
        },
        "marker": {"symbol": symbol, "size": _SYMBOLS[symbol][1], "maxdisplayed": _SPARSE if sparse else 0},
    }
    if line.texts:
        curve |= {"text": list(line.texts), "hovertemplate": "%{text}<br>%{x:.3g}, %{y:.3g}<extra></extra>"}
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


def legend_height(plot: LinePlot, width: float, height: float) -> float:
    """Inches that names take below a still plot of so many inches; none where they stand at the curves' ends."""
    names = [line.name for line in compress(plot.lines, _has_name(plot))]
    if not names or _named_at_their_ends(plot, width, height):
        return 0.0
    return 0.16 * -(-len(names) // _legend_columns(names, width)) + 0.1


def _has_name(plot: LinePlot) -> list[bool]:
    """Which curves have their names in the plot: of several those that have a point."""
    ends = [np.asarray(line.x, dtype=np.float64) + np.asarray(line.y, dtype=np.float64) for line in plot.lines]
    return [len(ends) > 1 and bool(np.isfinite(points).any()) for points in ends]


def _legend_columns(names: list[str], width: float) -> int:
    return min(max(int((width - 0.7) / (0.065 * max(map(len, names)) + 0.5)), 1), len(names))


def _name_width(name: str) -> float:
    return 0.058 * len(name) + _SAMPLE + 0.1  # inches, with a piece of the curve


def _named_at_their_ends(plot: LinePlot, width: float, height: float) -> list[Place] | None:
    """Where the names stand in a still plot of so many inches; None where they would collide."""
    named = _has_name(plot)
    beside = max((_name_width(line.name) for line in compress(plot.lines, named)), default=0.0)
    if beside > width / 4:
        return None
    size = (width - 0.8 - beside, height - 0.8)
    shares = [_along(plot, axis) for axis in ("x", "y")]
    curves = [
        Curve(np.stack([x * size[0], y * size[1]], axis=1), line.dash != "none", _name_width(line.name))
        for line, x, y in compress(zip(plot.lines, *shares, strict=True), named)
    ]
    return places(curves, size, _NAME_HEIGHT)


def _along(plot: LinePlot, axis: Literal["x", "y"]) -> list[np.ndarray]:
    """How far along an axis each curve's points lie, from 0 to 1, as matplotlib sets its ends."""
    log, ends = (plot.log_x, plot.x_range) if axis == "x" else (plot.log_y, plot.y_range)
    curves = [np.asarray(getattr(line, axis), dtype=np.float64) for line in plot.lines]
    edges = [edge for line in plot.lines for edge in (line.low, line.high) if edge is not None and axis == "y"]
    with np.errstate(divide="ignore", invalid="ignore"):
        scaled = [np.log10(values) if log else values for values in [*curves, *edges]]
    scaled = [np.where(np.isfinite(values), values, np.nan) for values in scaled]
    every = np.concatenate([values[~np.isnan(values)] for values in scaled]) if scaled else np.zeros(0)
    if not every.size:
        return scaled[: len(curves)]
    low, high = (float(every.min()), float(every.max())) if ends is None else ends
    room = 0.0 if ends else 0.05 * (high - low)
    low, high = low - room, high + room
    return [(values - low) / ((high - low) or 1.0) for values in scaled[: len(curves)]]


def draw_lines(axes: Any, plot: LinePlot, width: float, height: float) -> None:
    """The plot on matplotlib's axes, which have so many inches of a figure."""
    with needs("lab"):
        from matplotlib.transforms import ScaledTranslation

    styles = {"solid": "-", "dash": "--", "dot": ":", "none": "none"}
    looks: list[dict[str, Any]] = []
    named = _has_name(plot)
    for (line, symbol, sparse), has_name in zip(marks(plot.lines), named, strict=True):
        label = line.name if has_name else ""
        style: dict[str, Any] = {"color": line.colour, "label": label, "linestyle": styles[line.dash]}
        style["linewidth"] = 0.75 if line.thin else 1.5
        if line.markers or line.dash == "none" or sparse:
            mark, _, points = _SYMBOLS[symbol]
            style |= {"marker": mark, "markersize": points, "markevery": -(-len(line.x) // _SPARSE) if sparse else None}
        looks.append(style)
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
    for axis, scale in ((axes.xaxis, log_scale(plot, "x")), (axes.yaxis, log_scale(plot, "y"))):
        if scale and drawn:
            _set_ticks(axis, scale)
    axes.set_title(plot.title, fontsize=10)
    axes.set_xlabel(plot.x_title, fontsize=8)
    axes.set_ylabel(plot.y_title, fontsize=8)
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.3)
    names, looks = [line.name for line in compress(plot.lines, named)], list(compress(looks, named))
    if found := _named_at_their_ends(plot, width, height):
        size = (width - 0.8 - max(map(_name_width, names)), height - 0.8)
        for name, style, (x, y, beside) in zip(names, looks, found, strict=True):
            start, level = (size[0] + 0.07 if beside else x) / size[0], y / size[1]
            piece = [start, start + _SAMPLE / 2 / size[0], start + _SAMPLE / size[0]]
            style |= {"label": "", "markevery": [1], "transform": axes.transAxes, "clip_on": False}
            axes.plot(piece, [level] * 3, **style)
            at = {"xy": (piece[-1], level), "xycoords": "axes fraction", "annotation_clip": False}
            axes.annotate(name, **at, xytext=(4, 0), textcoords="offset points", fontsize=_NAME_SIZE, va="center")
    elif names:
        below = axes.transAxes + ScaledTranslation(0, -0.42, axes.figure.dpi_scale_trans)
        place = {"loc": "upper left", "bbox_to_anchor": (0, 0), "bbox_transform": below, "borderaxespad": 0}
        axes.legend(fontsize=_NAME_SIZE, ncols=_legend_columns(names, width), frameon=False, **place)


def _set_ticks(axis: Any, scale: LogScale) -> None:
    with needs("lab"):
        from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    if scale.digits:
        axis.set_major_locator(LogLocator(subs=scale.digits, numticks=99))
    else:
        axis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: _number(value, scale)))


def _number(value: float, scale: LogScale) -> str:
    """A tick's number: 0.1, or a power of ten; nothing where `every` leaves a decade out, or at a 0 beyond the axis."""
    if value <= 0:
        return ""
    decade = math.floor(math.log10(value) + 1e-9)
    if decade % scale.every:
        return ""
    if not scale.digits or scale.plain:
        return f"{value:.12g}"
    first = round(value / 10.0**decade)
    return ("" if first == 1 else f"{first} × ") + "10" + str(decade).translate(_RAISED)
