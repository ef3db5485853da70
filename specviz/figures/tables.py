"""Tables of words and numbers, as a notebook shows them and as CSV; and tables to unfold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from specviz.figures.export import table
from specviz.figures.text import for_html


@dataclass(frozen=True)
class Table:
    """Rows under headings. A number is shown in its column's format, None as a dash; columns of numbers end alike.

    columns  headings, with units
    rows     a value for each column
    formats  of the columns' numbers, as in ("", ".1f"); "" leaves words and numbers as they are

    >>> sv.figures.Table("Accuracy", ["network", "accuracy, %"], [["lenet", 91.25]], ["", ".1f"])
    Accuracy
    network  accuracy, %
    lenet           91.2
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    formats: Sequence[str] = ()

    def __post_init__(self) -> None:
        widths = {len(self.columns), *map(len, self.rows)} | ({len(self.formats)} if self.formats else set())
        if len(widths) > 1:
            raise ValueError(f"{self.title}: headings, formats and every row must be equally many; got {widths}")

    def shown(self) -> list[list[str]]:
        """The rows as text."""
        formats = self.formats or [""] * len(self.columns)
        return [[_text(value, format_) for value, format_ in zip(row, formats, strict=True)] for row in self.rows]

    def _numeric(self) -> list[bool]:
        """Of each column, whether it has numbers and no words."""
        columns = [[row[i] for row in self.rows if row[i] is not None] for i in range(len(self.columns))]
        return [bool(values) and not any(isinstance(value, str) for value in values) for values in columns]

    def __repr__(self) -> str:
        lines = [list(self.columns), *self.shown()]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.columns))]
        ways = [f"{'<>'[numeric]}{width}" for width, numeric in zip(widths, self._numeric(), strict=True)]
        aligned = ["  ".join(format(cell, way) for cell, way in zip(line, ways, strict=True)) for line in lines]
        return "\n".join([self.title, *(line.rstrip() for line in aligned)])

    def _repr_html_(self) -> str:
        sides = ["right" if numeric else "left" for numeric in self._numeric()]

        def line(cells: Sequence[str], tag: str) -> str:
            each = zip(cells, sides, strict=True)
            return "".join(f'<{tag} style="text-align:{side}">{for_html(cell)}</{tag}>' for cell, side in each)

        head, body = line(self.columns, "th"), "".join(f"<tr>{line(row, 'td')}</tr>" for row in self.shown())
        title = f'<caption style="caption-side:top;text-align:left">{for_html(self.title)}</caption>'
        return f"<table>{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"

    def csv(self) -> str:
        """The table with every digit of its numbers."""
        return table([list(self.columns), *self.rows])


@dataclass(frozen=True)
class Unfolding:
    """Tables that are folded on a page: only headings are shown, until one is clicked.

    parts  {heading: table}

    >>> part = sv.figures.Table("Accuracy", ["network", "%"], [["lenet", 91]])
    >>> sv.figures.Unfolding({"One network": part})
    One network
    network   %
    lenet    91
    """

    parts: Mapping[str, Table]

    def __repr__(self) -> str:
        return "\n\n".join(f"{heading}\n{repr(part).partition(chr(10))[2]}" for heading, part in self.parts.items())

    def _repr_html_(self) -> str:
        return "".join(
            f"<details><summary><b>{for_html(heading)}</b></summary>{part._repr_html_()}</details>"
            for heading, part in self.parts.items()
        )


def _text(value: Any, format_: str) -> str:
    if value is None:
        return "–"
    return value if isinstance(value, str) else format(value, format_)
