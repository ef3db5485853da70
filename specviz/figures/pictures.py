"""Maps beside each other on one scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from specviz.figures.colours import to_bytes
from specviz.figures.export import Still, table
from specviz.figures.panels import Panel
from specviz.figures.still import still_figure


@dataclass(frozen=True)
class Pictures(Still):
    """Maps beside each other, each with its title, on one scale. A notebook shows them as a still picture.

    maps  title -> (H, W) real, array or tensor; low and high are the ends of the colour table; NaN is drawn as low

    >>> sv.figures.Pictures({"black": np.zeros((32, 32)), "white": np.ones((32, 32))})
    Pictures('black', 'white')
    """

    maps: dict[str, Any]
    low: float = 0.0
    high: float = 1.0
    table: str = "gray"
    unit: str = ""
    axes: Literal["pixels", "offset", "frequency", "half"] = "pixels"

    def __repr__(self) -> str:
        return f"Pictures({', '.join(map(repr, self.maps))})"

    def still(self) -> Any:
        """The maps as a matplotlib figure."""
        scale: dict[str, Any] = {"table": self.table, "low": self.low, "high": self.high, "unit": self.unit}
        panels = [Panel(title, title, "", bar="whole", axes=self.axes, **scale) for title in self.maps]
        maps = {title: np.nan_to_num(np.asarray(shown), nan=self.low) for title, shown in self.maps.items()}
        frames = {title: to_bytes(shown, self.low, self.high) for title, shown in maps.items()}
        return still_figure(panels, frames, [], "")

    def alt_text(self) -> str:
        """The maps' titles and sizes, and their scale."""
        sizes = ((title, *np.asarray(shown).shape) for title, shown in self.maps.items())
        maps = "; ".join(f"{title}, {height} x {width}" for title, height, width in sizes)
        scale = f"from {self.low:g} to {self.high:g} {self.unit}".strip()
        return f"Maps beside each other: {maps}. The scale goes {scale}."

    def csv(self) -> str:
        """A row for each number: map, row, column, value."""
        rows: list[list[Any]] = [["map", "row", "column", "value"]]
        for title, shown in self.maps.items():
            rows += ([title, row, column, value] for (row, column), value in np.ndenumerate(np.asarray(shown)))
        return table(rows)
