"""The plot view: curves and other figures in plotly, on JupyterLab's own background."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anywidget
import plotly.basewidget
import plotly.graph_objects as go
import traitlets

from specviz.figures import Figure, LinePlot
from specviz.figures.lines import band_points, line_points, plotly_scale
from specviz.figures.text import for_plotly
from specviz.widgets.turns import in_turn

_ESM, _CSS = ((Path(__file__).parent / name).read_text("utf-8") for name in ("plotly.js", "plotly.css"))
_PLOTLY = Path(plotly.basewidget.__file__).parent / "package_data" / "widgetbundle.js"


class _Script(anywidget.AnyWidget):
    """Brings plotly's script to the page; plotly.js says why."""

    _esm = _ESM
    script = traitlets.Bytes().tag(sync=True)


_scripts: list[_Script] = []  # at most one


@in_turn
def _script() -> _Script:
    """The one for all figures of this process; a new one where `Widget.close_all()` has closed it."""
    if not _scripts or _scripts[0].comm is None:
        _scripts[:] = [_Script(script=_PLOTLY.read_bytes())]
    return _scripts[0]


class _Figure(go.FigureWidget):
    _esm = _ESM
    _css = _CSS
    label = traitlets.Unicode().tag(sync=True)  # what it shows, for who does not see it
    heading = traitlets.Unicode().tag(sync=True)
    named = traitlets.Bool().tag(sync=True)  # whether its curves' names are shown


# Pressed, these do what the mouse does. Of plotly's own the upload to its makers' cloud is left out, choosing points
# by box or lasso, which nothing here listens to, a second way back, and a second way to save: each is a stop of the
# Tab key in every plot.
_TOOLS = ["zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]
_CONFIG = {
    "responsive": True,
    "displaylogo": False,
    "modeBarButtons": [_TOOLS],
    "showSendToCloud": False,
    "plotlyServerURL": "",
}


class PlotView:
    """A figure that the page can move: `figure` is the plotly FigureWidget to display.

    Its title and the names of its curves are the page's own, around plotly's drawing.
    """

    def __init__(self, plot: Figure) -> None:
        _script()
        self.plot: Any = plot
        self.dark = False
        self._drawn = False
        data, layout, around = _parts(plot, dark=False)
        self.figure: Any = _Figure(data=data, layout=layout)
        self.figure._config = _CONFIG
        self._surround(around)
        self.figure.observe(self._draws, "_js2py_traceDeltas")

    def _surround(self, around: dict[str, Any]) -> None:
        with self.figure.hold_sync():
            for name, value in around.items():
                setattr(self.figure, name, value)

    def _draws(self, change: dict[str, Any]) -> None:
        self._drawn = self._drawn or bool(change["new"])

    @contextmanager
    def moving(self) -> Iterator[Any]:
        """Send all changes inside the block to the page in one message."""
        with self.figure.batch_update():
            yield self.figure
        if not self._drawn:
            # plotly's page takes no message before it has drawn, and draws what these two hold.
            self.figure._widget_data = copy.deepcopy(self.figure._data)
            self.figure._widget_layout = copy.deepcopy(self.figure._layout)

    def redraw(self, plot: Figure) -> None:
        """Show the same traces with another figure's data and layout."""
        self.plot = plot
        data, layout, around = _parts(plot, self.dark)
        with self.moving() as figure:
            figure.update_layout(layout)
            for trace, changed in zip(figure.data, data, strict=True):
                trace.update({key: value for key, value in changed.items() if key != "type"})
        self._surround(around)

    def set_dark(self, dark: bool) -> None:
        """Follow JupyterLab's theme."""
        self.dark = dark
        self.redraw(self.plot)


def _parts(plot: Figure, dark: bool) -> tuple[list[dict[str, Any]], dict[str, Any], dict[str, Any]]:
    """A figure as plotly's data and layout, and what stands around them."""
    drawn = plot.plotly(dark)
    layout = {key: value for key, value in drawn["layout"].items() if key != "title"}
    around = {"heading": plot.title, "label": plot.alt_text(), "named": layout["showlegend"]}
    return drawn["data"], layout | {"showlegend": False}, around


class LinesView(PlotView):
    """Curves that keep their zoom while a slider moves: `show(plot)` moves the points in place.

    A plot shown later has the same lines, in name and style, and bands where the first has them.
    """

    def show(self, plot: LinePlot) -> None:
        """Replace the curves' points; curves that did not change are not sent again."""
        old, self.plot = self.plot, plot
        with self.moving() as figure:
            traces = iter(figure.data)
            for before, line in zip(old.lines, plot.lines, strict=True):
                if (line.low is None) != (before.low is None):
                    raise ValueError(f"{line.name}: a band comes or goes; a curve keeps what it was first shown with")
                for points in (line_points,) if line.low is None else (band_points, line_points):
                    trace = next(traces)
                    if line is not before:
                        trace.x, trace.y = points(line)
                        if line.texts:
                            trace.text = [for_plotly(text) for text in line.texts]
            for axis in ("x", "y"):
                if (scale := plotly_scale(plot, axis)) != plotly_scale(old, axis):
                    figure.update_layout({f"{axis}axis": scale})
        self.figure.label = plot.alt_text()
