"""What every bench does with what it measured: records, a table, and the aims that were missed."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Formatter
from typing import Any, TypeVar, cast

from specviz import records
from specviz.extras import needs

with needs("lab"):
    from rich.console import Console
    from rich.table import Table

R = TypeVar("R", bound=Mapping[str, Any])  # a record


def device() -> str:
    """What is measured on: a GPU where there is one."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def write(
    out: Path, rows: Sequence[R], same: Sequence[str] | None = None, order: Callable[[R], Any] | None = None
) -> list[R]:
    """Write rows of one bench to out/EXPERIMENT.jsonl; returns all that the file then has.

    same   keys: an older row of the file is kept unless some new row agrees with it in all of them; None keeps none
    order  the key by which all rows are sorted
    """
    path = out / f"{rows[0]['experiment']}.jsonl"
    every = list(rows)
    if same is not None and path.exists():
        new = [[row[key] for key in same] for row in rows]
        older = cast("list[R]", records.read(path))
        every = [row for row in older if [row[key] for key in same] not in new] + every
    if order is not None:
        every.sort(key=order)
    records.write(path, every)
    return every


def show(
    title: str,
    rows: Iterable[R],
    columns: str,
    computed: Mapping[str, Callable[[R], Any]] | None = None,
    left: Collection[str] = (),
    no_wrap: bool = False,
) -> None:
    """Print a table of the rows.

    columns   "heading: cell | heading: cell", a cell being a format string of the row's keys; bytes have a format MB
    computed  further keys, made of the row
    left      the headings of columns that begin at the left
    """
    table, cells = Table(title=title), []
    for column in columns.split(" | "):
        heading, _, cell = column.rpartition(": ")
        table.add_column(heading, justify="left" if heading in left else "right", no_wrap=no_wrap)
        cells.append(cell)
    for row in rows:
        values = {**row, **{key: make(row) for key, make in (computed or {}).items()}}
        table.add_row(*(_Cells().vformat(cell, (), values) for cell in cells))
    Console().print(table)


class _Cells(Formatter):
    def format_field(self, value: Any, spec: str) -> str:
        return f"{value / 1e6:.1f}" if spec == "MB" else str(super().format_field(value, spec))


@dataclass(frozen=True)
class Aim:
    """A bound for a number. `text` reports a miss: a format string of the row's keys, `value` and `bound`."""

    text: str
    value: float
    least: float = -math.inf
    most: float = math.inf


def missed(aims: Callable[[R], Iterable[Aim]], rows: Iterable[R]) -> list[str]:
    """What the rows miss of their aims, in words, row by row."""
    lines = []
    for row in rows:
        for aim in aims(row):
            if aim.value < aim.least or aim.value > aim.most:
                bound = aim.least if aim.value < aim.least else aim.most
                lines.append(aim.text.format_map({**row, "value": aim.value, "bound": bound}))
    return lines


def tell(lines: Iterable[str], about: str = "aim missed") -> None:
    for line in lines:
        print(f"{about}:", line)
