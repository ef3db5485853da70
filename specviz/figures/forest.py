"""Claims with their measured effects, one below the other: a forest plot, in a notebook and in plotly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from specviz.extras import needs
from specviz.figures.colours import BLUE, GREY, ORANGE, on_page, pale
from specviz.figures.export import Still, sentence, table
from specviz.figures.page import NARROW, page_axis, page_layout, wrapped
from specviz.figures.text import figure_for_plotly, without_mathematics

# Told apart by colour and by shape.
_COLOURS = {"supported": BLUE, "refuted": ORANGE, "cannot tell": GREY}
_SYMBOLS = {"supported": "circle", "refuted": "x", "cannot tell": "circle"}  # open, where it cannot be told
_MARKS = {"supported": "o", "refuted": "X", "cannot tell": "o"}
_ROW = 46  # pixels, for a label of two lines
_FURTHEST = 6.0  # margins; an effect further away is an arrowhead at the edge


@dataclass(frozen=True)
class ForestRow:
    """One claim in one setting.

    label           in words
    mean, low, high the effect and its interval, in margins from the claim's boundary: from 1 on the effect matters
    outcome         "supported", "refuted" or "cannot tell"
    text            the effect in its own unit, shown beside the row

    >>> sv.figures.ForestRow("LeNet", mean=1.5, low=0.4, high=2.6, outcome="supported", text="+1.5 points").outcome
    'supported'
    """

    label: str
    mean: float
    low: float
    high: float
    outcome: str
    text: str = ""


@dataclass(frozen=True)
class Forest(Still):
    """Effects with their intervals, one in each row; effects in the band from -1 to 1 are too small to matter.

    Effects are divided by the margins of their claims, so that points, times and bytes share one axis. An effect of
    more than six margins is drawn as an arrowhead at the edge.

    >>> row = sv.figures.ForestRow("LeNet", mean=1.5, low=0.4, high=2.6, outcome="supported")
    >>> sv.figures.Forest("Accuracy", [row])
    Forest('Accuracy': 1 supported)
    """

    title: str
    rows: Sequence[ForestRow]
    x_title: str = "from the claim's boundary, in margins"

    def __post_init__(self) -> None:
        if not self.rows:
            raise ValueError(f"{self.title}: there is no row to draw")
        for row in self.rows:
            if row.outcome not in _COLOURS:
                raise ValueError(f"{row.label}: outcome={row.outcome!r} is none of {', '.join(_COLOURS)}")
            if not all(map(_is_finite, (row.mean, row.low, row.high))):
                raise ValueError(f"{row.label}: its effect or interval is not finite; leave it out")

    def __repr__(self) -> str:
        counts = ", ".join(f"{n} {name}" for name in _COLOURS if (n := sum(r.outcome == name for r in self.rows)))
        return f"Forest({self.title!r}: {counts})"

    def still(self) -> Any:
        """The rows as a matplotlib figure."""
        with needs("lab"):
            from matplotlib.figure import Figure

        figure = Figure(figsize=(8.7, 1.1 + 0.42 * len(self.rows)), dpi=80, layout="constrained", facecolor="white")
        axes = figure.add_subplot()
        axes.axvspan(-1, 1, color=GREY, alpha=0.15, linewidth=0)
        axes.axvline(0, color=GREY, linewidth=1)
        for place, row in enumerate(self.rows):
            colour = _COLOURS[row.outcome]
            low, mean, high = map(_within, (row.low, row.mean, row.high))
            axes.plot([low, high], [place, place], color=colour, linewidth=2, solid_capstyle="butt")
            face = "white" if row.outcome == "cannot tell" else colour
            mark = {-1: "<", 0: _MARKS[row.outcome], 1: ">"}[_beyond(row.mean)]
            axes.plot([mean], [place], mark, color=colour, markersize=7, markerfacecolor=face)
        axes.set_yticks(range(len(self.rows)), [_lines(row.label, "\n") for row in self.rows], fontsize=7)
        axes.set_ylim(len(self.rows) - 0.5, -0.5)
        axes.set_xlim(*self._ends())
        axes.set_title(self.title, fontsize=10, parse_math=False)
        axes.set_xlabel(self.x_title, fontsize=8)
        axes.tick_params(labelsize=7)
        axes.grid(axis="x", alpha=0.3)
        return without_mathematics(figure)

    def alt_text(self) -> str:
        """Its title, and of each row the claim, the effect and the outcome."""
        rows = [f"{row.label}: {row.text or format(row.mean, '.2g')}, {row.outcome}" for row in self.rows]
        return f"{sentence(self.title)} {'; '.join(rows)}."

    def plotly(self, dark: bool) -> dict[str, Any]:
        """The rows as plotly's `data` and `layout`."""
        traces: list[dict[str, Any]] = []
        for outcome, colour in _COLOURS.items():
            places = [place for place, row in enumerate(self.rows) if row.outcome == outcome]
            rows, colour = [self.rows[place] for place in places], on_page(colour, dark)
            means = [_within(row.mean) for row in rows]
            arrows = {-1: "triangle-left", 0: _SYMBOLS[outcome], 1: "triangle-right"}
            symbols = [arrows[_beyond(row.mean)] + "-open" * (outcome == "cannot tell") for row in rows]
            traces.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "name": outcome,
                    "x": means,
                    "y": places,
                    "error_x": {
                        "type": "data",
                        "symmetric": False,
                        "array": [_within(row.high) - x for row, x in zip(rows, means, strict=True)],
                        "arrayminus": [x - _within(row.low) for row, x in zip(rows, means, strict=True)],
                        "color": colour,
                        "thickness": 2.5,
                        "width": 0,
                    },
                    "marker": {"color": colour, "size": 11, "symbol": symbols, "line": {"width": 2}},
                    "text": [row.text for row in rows],
                    "hovertemplate": "%{text}<extra></extra>",
                }
            )
        layout = page_layout(self.title, dark, 80 + _ROW * len(self.rows), legend=True)
        layout["xaxis"] = page_axis(self.x_title, dark) | {"range": list(self._ends())}
        labels = [_lines(row.label, "<br>") for row in self.rows]
        layout["yaxis"] = page_axis("", dark) | {
            "tickvals": list(range(len(labels))),
            "ticktext": labels,
            "range": [len(labels) - 0.5, -0.5],
            "showgrid": False,
            "tickfont": {"size": 11},
        }
        band = {"type": "rect", "x0": -1, "x1": 1, "y0": 0, "y1": 1, "yref": "paper", "layer": "below"}
        middle = {"type": "line", "x0": 0, "x1": 0, "y0": 0, "y1": 1, "yref": "paper", "layer": "below"}
        grey = on_page(GREY, dark)
        layout["shapes"] = [
            band | {"fillcolor": pale(grey), "line": {"width": 0}},
            middle | {"line": {"color": grey, "width": 1}},
        ]
        return figure_for_plotly({"data": traces, "layout": layout})

    def csv(self) -> str:
        """The rows as they are."""
        rows = [[row.label, row.mean, row.low, row.high, row.outcome, row.text] for row in self.rows]
        return table([["claim", "effect, margins", "low", "high", "outcome", "measured"], *rows])

    def _ends(self) -> tuple[float, float]:
        lows, highs = [_within(row.low) for row in self.rows], [_within(row.high) for row in self.rows]
        return min(-1.5, *lows) - 0.2, max(1.5, *highs) + 0.2


def _within(margins: float) -> float:
    return max(-_FURTHEST, min(margins, _FURTHEST))


def _beyond(margins: float) -> int:
    """-1 or 1 for an effect beyond that end of the figure, else 0."""
    return (margins > _FURTHEST) - (margins < -_FURTHEST)


def _is_finite(value: float) -> bool:
    return abs(value) < float("inf")


def _lines(label: str, line_break: str) -> str:
    """A label in lines that leave half of a narrow page to the plot."""
    return wrapped(label, NARROW // 7).replace("<br>", line_break)
