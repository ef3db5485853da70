"""Which settings differ in rank over data sets: Demšar's critical-difference diagram, still and in plotly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from specviz.compare import LEVEL, Ranks
from specviz.extras import needs
from specviz.figures.colours import BLUE, ORANGE, on_page
from specviz.figures.export import Still, sentence, table
from specviz.figures.page import ink_and_grid, page_axis, page_layout, wrapped
from specviz.figures.text import figure_for_plotly, without_mathematics

# Rows from top to bottom: the critical difference, the axis, the bars, the settings.
_CRITICAL, _AXIS, _TOP = -1.2, 0.0, -2.0


@dataclass(frozen=True)
class RankDiagram(Still):
    """Mean ranks on an axis, the best on the left; a bar joins settings that do not differ significantly.

    The length above the axis is the critical difference: settings further apart differ. Demšar (2006).

    >>> scores = {f"set {i}": {"best": 0.9, "middle": 0.8, "worst": 0.7} for i in range(8)}
    >>> sv.figures.RankDiagram("Scores", sv.compare.ranked(scores)).csv().splitlines()[0]
    'setting,mean rank,p against best,p against middle,p against worst'
    """

    title: str
    ranks: Ranks

    def __repr__(self) -> str:
        return f"RankDiagram({self.title!r}: {self.ranks})"

    def still(self) -> Any:
        """The diagram as a matplotlib figure."""
        with needs("lab"):
            from matplotlib.figure import Figure

        drawn = _drawing(self.ranks)
        figure = Figure(figsize=(8.7, 1.1 + 0.27 * drawn.height), dpi=80, layout="constrained", facecolor="white")
        axes = figure.add_subplot()
        for rank, row, edge in drawn.elbows:
            axes.plot([edge, rank, rank], [row, row, _AXIS], color=BLUE, linewidth=1)
            axes.plot(rank, _AXIS, "o", color=BLUE, markersize=5)
        for low, high, row in drawn.bars:
            axes.plot([low, high], [row, row], color=ORANGE, linewidth=4, solid_capstyle="round")
        axes.plot(drawn.critical, [_CRITICAL] * 2, "k|-", markersize=7)
        axes.annotate(self._critical(), (sum(drawn.critical) / 2, _CRITICAL - 0.2), ha="center", fontsize=7)
        for side, labels in ((axes, drawn.left), (axes.twinx(), drawn.right)):
            side.set_yticks(list(labels), [_label(name, self.ranks, "\n") for name in labels.values()])
            side.set_ylim(drawn.bottom, _TOP)
            side.tick_params(axis="y", length=0, labelsize=8)
            side.spines[:].set_visible(False)
        axes.set_xlim(*drawn.edges)
        axes.set_xticks(range(1, len(self.ranks.mean) + 1))
        axes.spines["top"].set(visible=True, position=("data", _AXIS))
        axes.tick_params(axis="x", top=True, bottom=False, labeltop=True, labelbottom=False, labelsize=7)
        axes.set_title(self.title, fontsize=10, parse_math=False)
        axes.set_xlabel(self._x_title(), fontsize=8)
        return without_mathematics(figure)

    def alt_text(self) -> str:
        """Its title, the settings' mean ranks, the best first, and the critical difference."""
        settings = "; ".join(f"{name} {rank:.3g}" for name, rank in self.ranks.mean.items())
        return f"{sentence(self.title)} {self._x_title()}. {settings}. {self._critical()}."

    def plotly(self, dark: bool) -> dict[str, Any]:
        """The diagram as plotly's `data` and `layout`."""
        blue, orange, (ink, _) = on_page(BLUE, dark), on_page(ORANGE, dark), ink_and_grid(dark)
        drawn = _drawing(self.ranks)
        elbows = [_line([edge, rank, rank], [row, row, _AXIS], blue, 1.5) for rank, row, edge in drawn.elbows]
        bars = [_line([low, high], [row, row], orange, 5) for low, high, row in drawn.bars]
        ends = {"mode": "lines+markers", "marker": {"symbol": "line-ns-open", "size": 9, "color": ink}}
        critical = _line(list(drawn.critical), [_CRITICAL] * 2, ink, 2) | ends
        dots = {
            "type": "scatter",
            "mode": "markers",
            "x": list(self.ranks.mean.values()),
            "y": [_AXIS] * len(self.ranks.mean),
            "text": list(self.ranks.mean),
            "hovertemplate": "%{text}: %{x:.3g}<extra></extra>",
            "marker": {"color": blue, "size": 8},
        }
        # plotly leaves out an axis that has no trace.
        unseen = _line([None], [None], blue, 1) | {"yaxis": "y2"}
        layout = page_layout(self.title, dark, height=120 + round(30 * drawn.height))
        layout["margin"] |= {"l": 10, "r": 10}  # the names make their own room
        bare = {"showgrid": False, "showline": False, "ticks": "", "fixedrange": True, "range": [drawn.bottom, _TOP]}
        for axis, labels in (("yaxis", drawn.left), ("yaxis2", drawn.right)):
            names = [_label(name, self.ranks, "<br>") for name in labels.values()]
            layout[axis] = page_axis("", dark) | bare | {"tickvals": list(labels), "ticktext": names}
        layout["yaxis2"] |= {"overlaying": "y", "side": "right"}
        layout["xaxis"] = page_axis("", dark) | {
            "range": list(drawn.edges),
            "tickvals": list(range(1, len(self.ranks.mean) + 1)),
            "side": "top",
            "anchor": "free",
            "position": (drawn.bottom - _AXIS) / (drawn.bottom - _TOP),
            "showgrid": False,
        }
        layout["annotations"] = [
            {"x": sum(drawn.critical) / 2, "y": _CRITICAL, "text": self._critical(), "showarrow": False, "yshift": 11},
            {"xref": "paper", "x": 0.5, "yref": "paper", "y": 0, "yanchor": "top", "showarrow": False}
            | {"text": wrapped(self._x_title(), 44)},
        ]
        return figure_for_plotly({"data": [*elbows, *bars, critical, dots, unseen], "layout": layout})

    def csv(self) -> str:
        """Settings, the best first: their mean ranks, and Nemenyi's p-value of each against each."""
        names = list(self.ranks.mean)
        head = ["setting", "mean rank", *(f"p against {name}" for name in names)]
        rows = [[a, self.ranks.mean[a], *(self.ranks.p_values[a][b] for b in names)] for a in names]
        return table([head, *rows])

    def _critical(self) -> str:
        return f"critical difference {self.ranks.critical_difference:.3g}"

    def _x_title(self) -> str:
        ranks = self.ranks
        tests = f"Friedman p = {ranks.p:.2g}, bars at {100 * LEVEL:g} %"
        return f"mean rank over {ranks.datasets} data sets, 1 is best ({tests})"


@dataclass(frozen=True)
class _Drawing:
    """Where everything stands: x in ranks, y in rows downwards."""

    elbows: list[tuple[float, float, float]]  # mean rank, row, the edge that its label stands at
    bars: list[tuple[float, float, float]]  # from, to, row
    critical: tuple[float, float]
    left: dict[float, str]  # row -> setting
    right: dict[float, str]
    edges: tuple[float, float]
    bottom: float

    @property
    def height(self) -> float:
        return self.bottom - _TOP


def _drawing(ranks: Ranks) -> _Drawing:
    names = list(ranks.mean)
    last = max(len(names), 1 + ranks.critical_difference)
    edges = (1 - 0.04 * (last - 1), last + 0.04 * (last - 1))
    bars: list[tuple[float, float, float]] = []
    for group in ranks.alike():
        low, high = ranks.mean[group[0]], ranks.mean[group[-1]]
        row = 0.6
        while any(at == row and start <= high and low <= end for start, end, at in bars):
            row += 0.5
        bars.append((low, high, row))
    first = max((row for _, _, row in bars), default=0.0) + 0.9
    half = (len(names) + 1) // 2
    left = {first + i: name for i, name in enumerate(names[:half])}
    right = {first + i: name for i, name in enumerate(reversed(names[half:]))}
    elbows = [(ranks.mean[n], row, edges[i]) for i, side in enumerate((left, right)) for row, n in side.items()]
    return _Drawing(elbows, bars, (1.0, 1 + ranks.critical_difference), left, right, edges, first + half - 0.4)


def _label(name: str, ranks: Ranks, line_break: str) -> str:
    return wrapped(f"{name} ({ranks.mean[name]:.3g})", 14).replace("<br>", line_break)


def _line(x: list[Any], y: list[Any], colour: str, width: float) -> dict[str, Any]:
    line = {"type": "scatter", "mode": "lines", "x": x, "y": y, "line": {"color": colour, "width": width}}
    return line | {"hoverinfo": "skip", "showlegend": False}
