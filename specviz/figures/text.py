"""Text from records stays text: no figure treats it as HTML, a link, mathematics or a spreadsheet's formula."""

from __future__ import annotations

from html import escape
from typing import Any

from specviz.extras import needs

# plotly reads a small HTML, and mathematics between dollars; it shows these names of characters as the characters.
_NAMED = {ord("&"): "&amp;", ord("<"): "&lt;", ord(">"): "&gt;", ord("$"): "&#36;"}
_TEXTS = ("text", "name", "ticktext", "customdata", "title")  # the parts of a plotly figure that are text


def for_plotly(text: str) -> str:
    """The text as plotly shows it, letter by letter; the line breaks of `page.wrapped` stay."""
    return text.translate(_NAMED).replace("&lt;br&gt;", "<br>")


def figure_for_plotly(figure: dict[str, Any]) -> dict[str, Any]:
    """A plotly figure's data and layout with `for_plotly` applied to all texts but hover templates, which are ours."""
    return {key: _part_for_plotly(value, key in _TEXTS) for key, value in figure.items()}


def _part_for_plotly(part: Any, is_text: bool) -> Any:
    if isinstance(part, dict):
        return figure_for_plotly(part)
    if isinstance(part, list):
        return [_part_for_plotly(value, is_text) for value in part]
    return for_plotly(part) if is_text and isinstance(part, str) else part


def for_html(text: str) -> str:
    """The text as HTML in which a notebook's page finds no mathematics between dollar signs."""
    return escape(text).replace("$", "<span>$</span>")


def without_mathematics(figure: Any) -> Any:
    """The matplotlib figure, with mathematics between dollar signs off in all texts but the numbers of its axes."""
    with needs("lab"):
        from matplotlib.text import Text
        from matplotlib.ticker import ScalarFormatter

    numbers = {
        id(text)
        for axes in figure.axes
        for axis in (axes.xaxis, axes.yaxis)
        if isinstance(axis.get_major_formatter(), ScalarFormatter)
        for text in axis.findobj(Text)  # ticks that are out of sight too: drawing may take them for others
        if text is not axis.label
    }
    for text in figure.findobj(Text):
        if id(text) not in numbers:
            text.set_parse_math(False)
    return figure


def for_spreadsheet(cell: str) -> str:
    """The cell with an apostrophe before it, where a spreadsheet would take it for a formula; a number stays one."""
    cell = cell.replace("\r\n", "\n").replace("\r", "\n")  # csv puts no quotes around the one that ends a row elsewhere
    if not cell.startswith(("=", "+", "-", "@", "\t", "\n", "＝", "＋", "－", "＠")):
        return cell
    try:
        float(cell)
    except ValueError:
        return f"'{cell}"
    return cell if cell.strip() == cell else f"'{cell}"
