"""A table of numbers whose cells have colours: a still picture in a notebook, the same in plotly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from specviz.extras import needs
from specviz.figures.colours import colour_table, readable_on, to_bytes
from specviz.figures.export import Still, sentence, table
from specviz.figures.page import NARROW, page_axis, page_layout, wrapped
from specviz.figures.text import figure_for_plotly, for_plotly, without_mathematics

_TABLES = {"sequential": "viridis", "diverging": "RdBu"}
_LABEL = 18  # characters of a row's label beside each other


@dataclass(frozen=True)
class Matrix(Still):
    """Numbers in rows and columns, each on its colour. A notebook shows one as a still picture.

    columns, rows  their labels, left to right and top to bottom
    values         (R, C); NaN leaves a cell empty
    unit           of the values, at the colour bar
    number_format  of the numbers in the cells, as in ".3g" or ".1%"
    colours        "sequential" from the least to the greatest; "diverging": red below 0 and blue above, 0 is white

    >>> matrix = sv.figures.Matrix("Scores", "beta", "network", ["0.5", "1"], ["lenet", "vgg16"], np.eye(2))
    >>> matrix.ends()
    (0.0, 1.0)
    """

    title: str
    x_title: str
    y_title: str
    columns: Sequence[str]
    rows: Sequence[str]
    values: np.ndarray
    unit: str = ""
    number_format: str = ".3g"
    colours: Literal["sequential", "diverging"] = "sequential"

    def __post_init__(self) -> None:
        shape = (len(self.rows), len(self.columns))
        if np.shape(self.values) != shape or 0 in shape:
            raise ValueError(
                f"{self.title}: values of shape {np.shape(self.values)} for {shape[0]} rows and {shape[1]} columns; "
                "give one number for each cell, NaN for an empty one"
            )
        if np.isinf(self.values).any():
            raise ValueError(f"{self.title}: an infinite value has no colour; give NaN to leave its cell empty")
        if self.colours not in _TABLES:
            raise ValueError(f"{self.title}: colours={self.colours!r} is not one of {', '.join(_TABLES)}")

    def __repr__(self) -> str:
        return f"Matrix({self.title!r}: {len(self.rows)} x {len(self.columns)})"

    def ends(self) -> tuple[float, float]:
        """The values at the ends of the colour bar."""
        known = np.asarray(self.values)[~np.isnan(self.values)]
        if not known.size:
            return (-1.0, 1.0) if self.colours == "diverging" else (0.0, 1.0)
        if self.colours == "diverging":
            far = float(np.abs(known).max()) or 1.0
            return -far, far
        return float(known.min()), float(known.max())

    def cells(self) -> list[tuple[int, int, str, str]]:
        """Row, column, number and its ink, of every cell that is not empty."""
        known = ~np.isnan(self.values)
        colours = colour_table(_TABLES[self.colours])[to_bytes(np.where(known, self.values, 0), *self.ends())]
        found = []
        for row, column in zip(*np.nonzero(known), strict=True):
            number = format(float(self.values[row, column]), self.number_format)
            found.append((int(row), int(column), number, readable_on(colours[row, column])))
        return found

    def still(self) -> Any:
        """The table as a matplotlib figure."""
        with needs("lab"):
            from matplotlib.colors import ListedColormap
            from matplotlib.figure import Figure

        height = 1.5 + 0.36 * len(self.rows)
        figure = Figure(figsize=(8.7, height), dpi=80, layout="constrained", facecolor="white")
        axes = figure.add_subplot()
        colours = ListedColormap(colour_table(_TABLES[self.colours]) / 255)
        low, high = self.ends()
        shown = axes.imshow(np.ma.masked_invalid(self.values), aspect="auto", cmap=colours, vmin=low, vmax=high)
        for row, column, number, ink in self.cells():
            axes.text(column, row, number, color=ink, ha="center", va="center", fontsize=8)
        axes.set_xticks(range(len(self.columns)), _broken(self.columns, 84 // len(self.columns)), fontsize=7)
        axes.set_yticks(range(len(self.rows)), _broken(self.rows, 2 * _LABEL), fontsize=7)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set_title(self.title, fontsize=10, parse_math=False)
        axes.set_xlabel(self.x_title, fontsize=8)
        axes.set_ylabel(self.y_title, fontsize=8)
        figure.colorbar(shown, ax=axes, pad=0.02).set_label(self.unit, fontsize=8)
        figure.axes[-1].tick_params(labelsize=7)
        return without_mathematics(figure)

    def alt_text(self) -> str:
        """Its title, its axes, and the cells with the least number and the greatest."""
        size = f"{len(self.rows)} x {len(self.columns)} cells, {self.y_title} by {self.x_title}"
        values = np.asarray(self.values)
        if np.isnan(values).all():
            return f"{sentence(self.title)} {size}. No numbers."
        ends = []
        for end in (np.nanargmin(values), np.nanargmax(values)):
            row, column = divmod(int(end), len(self.columns))
            number = f"{float(values[row, column]):{self.number_format}} {self.unit}".strip()
            ends.append(f"{number} at {self.rows[row]}, {self.columns[column]}")
        return f"{sentence(self.title)} {size}. From {ends[0]} to {ends[1]}."

    def plotly(self, dark: bool) -> dict[str, Any]:
        """The table as plotly's `data` and `layout`."""
        low, high = self.ends()
        shades = colour_table(_TABLES[self.colours])[:: 255 // 15]
        scale = [[i / (len(shades) - 1), f"rgb({r}, {g}, {b})"] for i, (r, g, b) in enumerate(shades.tolist())]
        bar = {"title": {"text": self.unit, "side": "right", "font": {"size": 12}}, "thickness": 12, "outlinewidth": 0}
        hover = [for_plotly(text).replace("{", "&#123;") for text in (self.y_title, self.x_title, self.unit)]
        heat = {
            "type": "heatmap",
            # plotly sends tables as lists, and NaN is not JSON.
            "z": [[None if np.isnan(v) else float(v) for v in row] for row in self.values],
            "colorscale": scale,
            "zmin": low,
            "zmax": high if high > low else low + 1,
            "xgap": 1,
            "ygap": 1,
            "colorbar": bar,
            "customdata": [[[row, column] for column in self.columns] for row in self.rows],
            "hovertemplate": f"{hover[0]} %{{customdata[0]}}<br>{hover[1]} %{{customdata[1]}}<br>"
            f"%{{z}} {hover[2]}<extra></extra>",
            "hoverongaps": False,
        }
        cells = self.cells()
        numbers = {
            "type": "scatter",
            "mode": "text",
            "x": [column for _, column, _, _ in cells],
            "y": [row for row, _, _, _ in cells],
            "text": [number for _, _, number, _ in cells],
            "textfont": {"color": [ink for _, _, _, ink in cells], "size": 11},
            "hoverinfo": "skip",
            "showlegend": False,
        }
        across, down = len(self.columns), len(self.rows)
        plain = {"showgrid": False, "showline": False, "ticks": ""}
        x_labels = [wrapped(label, max(NARROW // 7 // across, 8)) for label in self.columns]
        y_labels = [wrapped(label, _LABEL) for label in self.rows]
        layout = page_layout(self.title, dark, height=120 + 34 * down)
        layout["margin"]["l"] = 10  # the labels make their own room
        layout["xaxis"] = page_axis(self.x_title, dark) | plain | _labelled(x_labels) | {"range": [-0.5, across - 0.5]}
        layout["yaxis"] = (
            page_axis(self.y_title, dark, 40 + 34 * down) | plain | _labelled(y_labels) | {"range": [down - 0.5, -0.5]}
        )
        return figure_for_plotly({"data": [heat, numbers], "layout": layout})

    def csv(self) -> str:
        """The numbers, one cell a row; an empty cell has no number."""
        head = [self.y_title, self.x_title, self.unit or "value"]
        cells = ([r, c, self.values[i, j]] for i, r in enumerate(self.rows) for j, c in enumerate(self.columns))
        return table([head, *cells])


def _broken(labels: Sequence[str], width: int) -> list[str]:
    return [wrapped(label, max(width, 8)).replace("<br>", "\n") for label in labels]


def _labelled(labels: Sequence[str]) -> dict[str, Any]:
    return {"tickvals": list(range(len(labels))), "ticktext": labels}
