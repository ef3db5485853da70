"""Arrays to pictures: colours, curves, panels, and still pictures for readers without a kernel."""

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
from specviz.figures.lines import Line, LinePlot, plotly_layout
from specviz.figures.panels import MAX_SHOWN, Panel, Pictures
from specviz.figures.still import still_picture

__all__ = [
    "BLUE",
    "DARK_THEME_COLOURS",
    "GREEN",
    "GREY",
    "MAX_SHOWN",
    "ORANGE",
    "PURPLE",
    "SKY",
    "Line",
    "LinePlot",
    "Panel",
    "Pictures",
    "colour_table",
    "on_page",
    "plotly_layout",
    "still_picture",
    "to_bytes",
]
