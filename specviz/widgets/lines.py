"""The line view: curves in plotly, on JupyterLab's own background."""

from typing import Any

import numpy as np
import plotly.graph_objects as go

from specviz.figures import LinePlot, line_colour, plotly_layout


class _Figure(go.FigureWidget):
    """A figure whose first message to the page holds its traces.

    Plotly's own opens its channel empty and sends them after; a page that is slow enough draws nothing, and stays so.
    """

    _filled = False

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._config = {"responsive": True, "displaylogo": False}
        self._filled = True
        self.open()

    def open(self) -> None:
        if self._filled:
            super().open()


class LinesView:
    """Curves that keep their zoom while a slider moves: `show(plot)` moves the points in place.

    `figure` is the plotly FigureWidget to display. A plot shown later has the same lines, in name and style.
    """

    def __init__(self, plot: LinePlot) -> None:
        self.plot = plot
        self.dark = False
        self._moved = False  # since the page was sent the figure
        self.figure: Any = _Figure(
            data=[self._trace(i) for i in range(len(plot.lines))], layout=plotly_layout(plot, self.dark)
        )
        self.figure.observe(self._drawn, "_js2py_traceDeltas")

    def _drawn(self, change: dict[str, Any]) -> None:
        """The page has drawn the figure. Until its scripts are loaded it drops what it is sent: say that again."""
        if not change["new"]:
            return
        if self._moved:
            traces = range(len(self.plot.lines))
            now = [self._trace(i) for i in traces]
            points = {"x": [t.x for t in now], "y": [t.y for t in now], "line.color": [t.line.color for t in now]}
            # Assigning what the traces have already would send nothing.
            self.figure._send_update_msg(points, self.figure.layout.to_plotly_json(), list(traces))
        self.figure.unobserve(self._drawn, "_js2py_traceDeltas")

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
        old, self.plot, self._moved = self.plot, plot, True
        with self.figure.batch_update():
            for trace, before, line in zip(self.figure.data, old.lines, plot.lines, strict=True):
                if line is not before:
                    trace.x, trace.y = _finite(line.x), _finite(line.y)

    def set_dark(self, dark: bool) -> None:
        """Follow JupyterLab's theme."""
        self.dark, self._moved = dark, True
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
