"""The line view: curves in plotly, on JupyterLab's own background."""

from typing import Any

import numpy as np
import plotly.graph_objects as go

from specviz.figures import LinePlot, line_colour, plotly_layout


class LinesView:
    """Curves that keep their zoom while a slider moves: `show(plot)` moves the points in place.

    `figure` is the plotly FigureWidget to display. A plot shown later has the same lines, in name and style.
    """

    def __init__(self, plot: LinePlot) -> None:
        self.plot = plot
        self.dark = False
        self.figure: Any = go.FigureWidget(
            data=[self._trace(i) for i in range(len(plot.lines))], layout=plotly_layout(plot, self.dark)
        )
        self.figure._config = {"responsive": True, "displaylogo": False}

    def _trace(self, i: int) -> go.Scatter:
        line = self.plot.lines[i]
        return go.Scatter(
            x=_finite(line.x),
            y=_finite(line.y),
            name=line.name,
            mode="lines+markers" if line.markers else "lines",
            line={"color": line_colour(line, self.dark), "dash": line.dash, "width": 2},
        )

    def show(self, plot: LinePlot) -> None:
        """Replace the curves' points; curves that did not change are not sent again."""
        old, self.plot = self.plot, plot
        with self.figure.batch_update():
            for trace, before, line in zip(self.figure.data, old.lines, plot.lines, strict=True):
                if line is not before:
                    trace.x, trace.y = _finite(line.x), _finite(line.y)

    def set_dark(self, dark: bool) -> None:
        """Follow JupyterLab's theme."""
        self.dark = dark
        with self.figure.batch_update():
            self.figure.update_layout(plotly_layout(self.plot, dark))
            for trace, line in zip(self.figure.data, self.plot.lines, strict=True):
                trace.line.color = line_colour(line, dark)


def _finite(values: Any) -> np.ndarray:
    # NaN and infinity are not JSON: plotly's front end would drop the whole message.
    values = np.asarray(values, dtype=np.float64)
    finite = np.isfinite(values)
    if finite.all():
        return values
    gaps = values.astype(object)
    gaps[~finite] = None
    return gaps
