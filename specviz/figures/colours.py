"""Colours that stay apart for everybody, and values to bytes of a colour table."""

from __future__ import annotations

from functools import cache

import numpy as np

from specviz.extras import needs

# Found by a search over six hues for the largest smallest distance (CIE's of 2000) as people see them with and without
# the common colour-vision deficiencies, at a contrast of 3 and more to the page; tests hold both. Blue and orange are
# Okabe & Ito's, whose other colours are too pale for lines on white.
BLUE, ORANGE, GREEN, SKY, PURPLE = "#0072B2", "#D55E00", "#005A26", "#009EC0", "#6E2079"
GREY = "#696969"
# The same hues on a dark page.
DARK_THEME_COLOURS = {
    BLUE: "#81A9FF",
    ORANGE: "#D98A45",
    GREEN: "#B5E6AF",
    SKY: "#3FF5FF",
    PURPLE: "#E132A8",
    GREY: "#ADADAD",
}


@cache
def colour_table(name: str) -> np.ndarray:
    """A colour map as 256 RGB entries: (256, 3) uint8. Any matplotlib name, or "kept-dropped".

    "kept-dropped" shows two pictures in one: entries 0..127 are dim greys for dropped coefficients,
    128..255 are viridis for kept ones.

    >>> sv.figures.colour_table("viridis").shape
    (256, 3)
    """
    with needs("lab"):
        from matplotlib import colormaps

    if name == "kept-dropped":
        grey = np.linspace(24, 150, 128).round().astype(np.uint8)
        return np.concatenate([np.stack([grey] * 3, 1), colour_table("viridis")[::2]])
    return (colormaps[name](np.linspace(0, 1, 256))[:, :3] * 255).round().astype(np.uint8)


def to_bytes(array: np.ndarray, low: float, high: float, levels: int = 256) -> np.ndarray:
    """Map [low, high] onto 0 .. levels-1, clipping outside; any shape -> uint8. The array must be finite.

    >>> sv.figures.to_bytes(np.array([-1.0, 0.0, 0.5, 1.0]), low=0, high=1)
    array([  0,   0, 128, 255], dtype=uint8)
    """
    scale = (levels - 1) / (high - low) if high > low else 0.0
    array = np.asarray(array)
    if not np.issubdtype(array.dtype, np.floating):
        array = array.astype(np.float64)  # unsigned integers would wrap around below `low`
    return np.clip((array - low) * scale + 0.5, 0, levels - 0.5).astype(np.uint8)


def on_page(colour: str, dark: bool) -> str:
    """A colour for a light page, made lighter if the page is dark.

    >>> sv.figures.on_page(sv.figures.BLUE, dark=False) == sv.figures.BLUE
    True
    """
    return DARK_THEME_COLOURS.get(colour, colour) if dark else colour


def pale(colour: str) -> str:
    """The colour, transparent enough to lie behind curves, as a CSS colour."""
    return f"rgba({', '.join(str(int(colour[i : i + 2], 16)) for i in (1, 3, 5))}, 0.18)"


def readable_on(colour: np.ndarray) -> str:
    """Black or white, whichever stands out more from a background: (3,) uint8 -> "#000000" or "#ffffff".

    Each has a contrast of at least 4.5 where the other has less (WCAG 2's relative luminance).
    """
    share = np.asarray(colour, dtype=np.float64) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    luminance = float(linear @ [0.2126, 0.7152, 0.0722])
    return "#000000" if (luminance + 0.05) ** 2 > 1.05 * 0.05 else "#ffffff"
