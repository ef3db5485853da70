"""The line view: curves in plotly, on JupyterLab's own background."""

from typing import Any

import numpy as np
import plotly.graph_objects as go

from specviz.figures import Line, LinePlot, on_page, plotly_layout

SYMBOLS = {"circle": ("circle", 6), "star": ("star", 13), "diamond": ("diamond", 9)}


class LinesView:
    """Curves that keep their zoom while a slider moves: `show(plot)` moves the points in place.

    `figure` is the plotly FigureWidget to display. A plot shown later has the same lines, in name and style, and bands
    where the first has them.
    """

    def __init__(self, plot: LinePlot) -> None:
        self.plot = plot
        self.dark = False
        traces = [trace for line in plot.lines for trace in self._traces(line)]
        self.figure: Any = go.FigureWidget(data=traces, layout=plotly_layout(plot, self.dark))
        self.figure._config = {"responsive": True, "displaylogo": False}

    def _traces(self, line: Line) -> list[go.Scatter]:
        colour = on_page(line.colour, self.dark)
        x, y = _points(line)
        mode = "markers" if line.dash == "none" else "lines+markers" if line.markers else "lines"
        symbol, size = SYMBOLS[line.symbol]
        curve = go.Scatter(
            x=x,
            y=y,
            name=line.name,
            mode=mode,
            line={"color": colour, "dash": "solid" if line.dash == "none" else line.dash, "width": 2},
            marker={"symbol": symbol, "size": size},
        )
        if line.low is None:
            return [curve]
        x, y = _band(line)
        band = go.Scatter(
            x=x,
            y=y,
            mode="lines",
            line={"width": 0},
            fill="toself",
            fillcolor=_pale(colour),
            hoverinfo="skip",
            showlegend=False,
        )
        return [band, curve]

    def show(self, plot: LinePlot) -> None:
        """Replace the curves' points; curves that did not change are not sent again."""
        old, self.plot = self.plot, plot
        traces = iter(self.figure.data)
        with self.figure.batch_update():
            for before, line in zip(old.lines, plot.lines, strict=True):
                if (line.low is None) != (before.low is None):
                    raise ValueError(f"{line.name}: a band comes or goes; a curve keeps what it was first shown with")
                for points in (_points,) if line.low is None else (_band, _points):
                    trace = next(traces)
                    if line is not before:
                        trace.x, trace.y = points(line)

    def set_dark(self, dark: bool) -> None:
        """Follow JupyterLab's theme."""
        self.dark = dark
        traces = iter(self.figure.data)
        with self.figure.batch_update():
            self.figure.update_layout(plotly_layout(self.plot, dark))
            for line in self.plot.lines:
                colour = on_page(line.colour, dark)
                if line.low is not None:
                    next(traces).fillcolor = _pale(colour)
                next(traces).line.color = colour


def _points(line: Line) -> tuple[np.ndarray, np.ndarray]:
    return _finite(line.x), _finite(line.y)


def _band(line: Line) -> tuple[np.ndarray, np.ndarray]:
    """Once around the band: along its lower edge and back along the upper one. What is not finite is left out."""
    x, low, high = (np.asarray(v, dtype=np.float64) for v in (line.x, line.low, line.high))
    drawn = np.isfinite(x) & np.isfinite(low) & np.isfinite(high)
    x, low, high = x[drawn], low[drawn], high[drawn]
    return np.concatenate([x, x[::-1]]), np.concatenate([low, high[::-1]])


def _pale(colour: str) -> str:
    return f"rgba({', '.join(str(int(colour[i : i + 2], 16)) for i in (1, 3, 5))}, 0.18)"


def _finite(values: Any) -> np.ndarray:
    # NaN and infinity are not JSON: plotly's front end would drop the whole message.
    values = np.asarray(values, dtype=np.float64)
    finite = np.isfinite(values)
    if finite.all():
        return values
    gaps = values.astype(object)
    gaps[~finite] = None
    return gaps
