"""Any figure to display: in plotly, on JupyterLab's theme, with buttons that save it."""

from __future__ import annotations

from specviz.figures import Figure, file_content
from specviz.widgets.explorer import ExplorerView
from specviz.widgets.export import ExportButtons
from specviz.widgets.lines import PlotView
from specviz.widgets.lives import Displayed
from specviz.widgets.panels import PanelsView


class FigureView(Displayed):
    """Any figure as a widget: `FigureView(figure).view` is what to display, and `close()` frees it.

    figure  a LinePlot, a Matrix, Violins, a RankDiagram or a Forest
    """

    def __init__(self, figure: Figure) -> None:
        super().__init__()
        self.figure = figure
        self.plot = PlotView(figure)
        # It has no pictures here: it says which theme the page has, and fits the plot to its width.
        self.panels = PanelsView(figure.title)
        self.panels.observe(lambda change: self.plot.set_dark(change["new"]), "dark")
        self.export = ExportButtons(figure.title, lambda kind: file_content(figure, kind))
        self.view = ExplorerView(
            [self.plot.figure, self.panels, self.export],
            lambda: file_content(figure, "png"),
            lambda: repr(figure),
            figure.alt_text,
        )
        self._own_widgets()
