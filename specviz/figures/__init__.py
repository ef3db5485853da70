"""Arrays to pictures: colours, curves, panels, results, and still pictures for readers without a kernel."""

from specviz.figures.colours import (
    BLUE,
    DARK_THEME_COLOURS,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    colour_table,
    on_page,
    to_bytes,
)
from specviz.figures.export import Figure, Kind, file_content, file_name, save, table
from specviz.figures.forest import Forest, ForestRow
from specviz.figures.lines import Line, LinePlot, plotly_layout
from specviz.figures.matrix import Matrix
from specviz.figures.panels import MAX_SHOWN, Panel
from specviz.figures.pictures import Pictures
from specviz.figures.ranks import RankDiagram
from specviz.figures.still import still_picture
from specviz.figures.tables import Table, Unfolding
from specviz.figures.violins import Violins

__all__ = [
    "BLUE",
    "DARK_THEME_COLOURS",
    "GREEN",
    "GREY",
    "MAX_SHOWN",
    "ORANGE",
    "PURPLE",
    "SKY",
    "Figure",
    "Forest",
    "ForestRow",
    "Kind",
    "Line",
    "LinePlot",
    "Matrix",
    "Panel",
    "Pictures",
    "RankDiagram",
    "Table",
    "Unfolding",
    "Violins",
    "colour_table",
    "file_content",
    "file_name",
    "on_page",
    "plotly_layout",
    "save",
    "still_picture",
    "table",
    "to_bytes",
]
