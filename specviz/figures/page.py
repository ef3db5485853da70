"""What all plotly layouts share: they sit on JupyterLab's own background, light or dark, in a wide or narrow window."""

from __future__ import annotations

import textwrap
from typing import Any

# The narrowest page planned for: a notebook beside JupyterLab's file browser in a window of 780 pixels.
NARROW = 340  # pixels
USUAL = 320  # pixels, the height of a plot with its title and axes
TALL = 220  # pixels, of the y axis in a figure of that height
_CHARACTER = 7  # pixels, of a letter at the sizes below


def ink_and_grid(dark: bool) -> tuple[str, str]:
    """The colours of text and axes, and of grid lines."""
    return ("#e0e0e0", "#555555") if dark else ("#222222", "#dddddd")


def wrapped(text: str, width: int) -> str:
    """The text in lines of at most `width` characters, as plotly breaks them; a longer word stays whole."""
    return "<br>".join(textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False))


def page_layout(title: str, dark: bool, height: int = USUAL, legend: bool = False) -> dict[str, Any]:
    """A layout without its axes.

    height  pixels of the plot with its title and axes
    legend  whether it names its curves; on a page these names stand at their ends, or below (`widgets/plotly.js`)
    """
    ink, _ = ink_and_grid(dark)
    return {
        "template": "plotly_dark" if dark else "plotly_white",
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"color": ink, "size": 13},
        "title": {"text": title, "font": {"size": 14}, "x": 0.02, "yref": "paper", "y": 1, "yanchor": "bottom"}
        | {"pad": {"b": 14}},
        "margin": {"l": 60, "r": 20, "t": 34, "b": 46},
        "height": height,
        "showlegend": legend,
    }


def page_axis(title: str, dark: bool, length: int = NARROW) -> dict[str, Any]:
    """A linear axis of at least so many pixels, with its title."""
    ink, grid = ink_and_grid(dark)
    return {
        "gridcolor": grid,
        "linecolor": ink,
        "zeroline": False,
        "showline": True,
        "ticks": "outside",
        "automargin": True,
        "title": {"text": wrapped(title, length // _CHARACTER), "font": {"size": 13}, "standoff": 8},
    }
