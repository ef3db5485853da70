"""The spread of trials in several settings: a still picture in a notebook, the same in plotly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from specviz.extras import needs
from specviz.figures.colours import BLUE, ORANGE, on_page, pale
from specviz.figures.export import Still, sentence, table
from specviz.figures.page import NARROW, TALL, ink_and_grid, page_axis, page_layout, wrapped
from specviz.figures.text import figure_for_plotly, without_mathematics

_WIDE = 0.8  # of a violin, where its neighbour is 1 away


@dataclass(frozen=True)
class Violins(Still):
    """Groups of numbers beside each other: every number a point, their mean a bar, their density behind them.

    groups  name -> finite numbers, any count; a group of one or two, or of equal ones, shows points alone

    >>> sv.figures.Violins("Accuracy over seeds", "accuracy", {"ours": [0.91, 0.92, 0.94], "theirs": [0.9, 0.91]})
    Violins('Accuracy over seeds': ours (3), theirs (2))
    """

    title: str
    y_title: str
    groups: Mapping[str, Sequence[float] | np.ndarray]

    def __post_init__(self) -> None:
        if not self.groups:
            raise ValueError(f"{self.title}: there is no group to draw")
        for name, values in self.groups.items():
            if not np.isfinite(np.asarray(values, dtype=np.float64)).all():
                raise ValueError(f"{self.title}: {name} has a value that is not finite; leave such trials out")

    def __repr__(self) -> str:
        return f"Violins({self.title!r}: {', '.join(f'{name} ({len(v)})' for name, v in self.groups.items())})"

    def still(self) -> Any:
        """The groups as a matplotlib figure."""
        with needs("lab"):
            from matplotlib.figure import Figure

        figure = Figure(figsize=(8.7, 3.2), dpi=80, layout="constrained", facecolor="white")
        axes = figure.add_subplot()
        for place, values in enumerate(self.groups.values()):
            levels, halves = outline(values)
            axes.fill_betweenx(levels, place - halves, place + halves, color=BLUE, alpha=0.18, linewidth=0)
            axes.plot(place + spread(len(values)), values, "o", color=BLUE, markersize=4)
            if len(values) > 1:
                axes.hlines(np.mean(values), place - 0.25, place + 0.25, color=ORANGE, linewidth=2)
        names = [wrapped(name, max(96 // len(self.groups), 8)).replace("<br>", "\n") for name in self.groups]
        axes.set_xticks(range(len(self.groups)), names, fontsize=7)
        axes.set_xlim(-0.6, len(self.groups) - 0.4)
        axes.set_title(self.title, fontsize=10, parse_math=False)
        axes.set_ylabel(self.y_title, fontsize=8)
        axes.tick_params(labelsize=7)
        axes.grid(axis="y", alpha=0.3)
        return without_mathematics(figure)

    def alt_text(self) -> str:
        """Describe the plot: its title, and the count, the ends and the mean of each group."""
        groups = [
            f"{name}: {len(v)} values from {min(v):.3g} to {max(v):.3g}, mean {np.mean(v):.3g}"
            if len(v)
            else f"{name}: no values"
            for name, v in self.groups.items()
        ]
        return f"{sentence(self.title)} {self.y_title}. {'; '.join(groups)}."

    def plotly(self, dark: bool) -> dict[str, Any]:
        """The groups as plotly's `data` and `layout`."""
        blue, orange = on_page(BLUE, dark), on_page(ORANGE, dark)
        names = list(self.groups)
        traces: list[dict[str, Any]] = []
        for place, (name, values) in enumerate(self.groups.items()):
            levels, halves = outline(values)
            body = {
                "mode": "lines",
                "x": np.concatenate([place - halves, (place + halves)[::-1]]),
                "y": np.concatenate([levels, levels[::-1]]),
                "line": {"width": 0},
                "fill": "toself",
                "fillcolor": pale(blue),
                "hoverinfo": "skip",
            }
            points = {
                "mode": "markers",
                "name": name,
                "x": place + spread(len(values)),
                "y": np.asarray(values, dtype=np.float64),
                "marker": {"color": blue, "size": 7},
                "hovertemplate": "%{y}",
            }
            mean = [float(np.mean(values))] * 2 if len(values) > 1 else []
            bar = {
                "mode": "lines",
                "name": f"mean of {name}",
                "x": [place - 0.25, place + 0.25][: len(mean)],
                "y": mean,
                "line": {"color": orange, "width": 3},
                "hovertemplate": "%{y}",
            }
            traces += [{"type": "scatter", "showlegend": False, **trace} for trace in (body, points, bar)]
        labels = [wrapped(name, max(NARROW // 7 // len(names), 8)) for name in names]
        x_axis = {"tickvals": list(range(len(names))), "ticktext": labels, "range": [-0.6, len(names) - 0.4]}
        layout = page_layout(self.title, dark)
        layout["xaxis"] = (
            page_axis("", dark) | x_axis | {"showgrid": False, "tickangle": 0, "linecolor": ink_and_grid(dark)[1]}
        )
        layout["yaxis"] = page_axis(self.y_title, dark, TALL)
        return figure_for_plotly({"data": traces, "layout": layout})

    def csv(self) -> str:
        """The numbers, one a row."""
        return table([["group", self.y_title], *([name, v] for name, values in self.groups.items() for v in values)])


def outline(values: Sequence[float] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A violin's levels, from the least value to the greatest, and its half width at each; empty where it has none.

    The density is a sum of Gaussians as wide as Scott's rule says: the standard deviation over the fifth root of the
    count.
    """
    points = np.asarray(values, dtype=np.float64)
    if points.size < 3 or points.min() == points.max():
        return np.zeros(0), np.zeros(0)
    width = points.std(ddof=1) / points.size**0.2
    levels = np.linspace(points.min(), points.max(), 100)
    density = np.exp(-0.5 * ((levels[:, None] - points) / width) ** 2).sum(1)
    return levels, density / density.max() * _WIDE / 2


def spread(count: int) -> np.ndarray:
    """How far each of so many points is drawn from the middle, so that equal ones can be seen apart."""
    return ((np.arange(count) * 0.618 + 0.5) % 1 - 0.5) * 0.3  # the golden ratio: neighbours lie far apart
