"""What every bench does with what it measured: records, a table, and the aims that were missed."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from specviz import records

Row = dict[str, Any]
Cell = str | Callable[[Row], str]  # a format string of the row's keys, or what makes the text of a row


def device() -> str:
    """What is measured on: a GPU where there is one."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def record(experiment: str, device: str, **numbers: Any) -> Row:
    """A bench's record, with the machine and the commit that made it."""
    return records.stamp({"experiment": f"bench-{experiment}", "device": device, **numbers})


def write(
    out: Path, rows: Sequence[Row], same: Sequence[str] | None = None, order: Callable[[Row], Any] | None = None
) -> list[Row]:
    """Write rows of one bench to out/EXPERIMENT.jsonl; returns all that the file then has.

    same   keep those of the file's older rows that differ from every new one in one of these keys; None keeps none
    order  sorts all of them by it
    """
    path = out / f"{rows[0]['experiment']}.jsonl"
    every = list(rows)
    if same is not None and path.exists():
        new = [[row[key] for key in same] for row in rows]
        every = [row for row in records.read(path) if [row[key] for key in same] not in new] + every
    if order is not None:
        every.sort(key=order)
    records.write(path, every)
    return every


def show(
    title: str,
    rows: Iterable[Row],
    columns: Sequence[tuple[str, Cell]],
    left: Collection[str] = (),
    no_wrap: bool = False,
) -> None:
    """Print a table of the rows; columns are headings and cells, those in `left` begin at the left."""
    table = Table(title=title)
    for heading, _ in columns:
        table.add_column(heading, justify="left" if heading in left else "right", no_wrap=no_wrap)
    for row in rows:
        table.add_row(*(cell.format_map(row) if isinstance(cell, str) else cell(row) for _, cell in columns))
    Console().print(table)


def megabytes(key: str) -> Callable[[Row], str]:
    """A cell with one digit after the point."""
    return lambda row: f"{row[key] / 1e6:.1f}"


@dataclass(frozen=True)
class Aim:
    """A bound that a number is to keep; `text` says that it does not: a format string of the row, `value`, `bound`."""

    text: str
    value: float
    least: float = -math.inf
    most: float = math.inf


def missed(aims: Callable[[Row], Iterable[Aim]], rows: Iterable[Row]) -> list[str]:
    """What the rows miss of their aims, in words, row by row."""
    said = []
    for row in rows:
        for aim in aims(row):
            if aim.value < aim.least or aim.value > aim.most:
                bound = aim.least if aim.value < aim.least else aim.most
                said.append(aim.text.format_map({**row, "value": aim.value, "bound": bound}))
    return said


def tell(lines: Iterable[str], about: str = "aim missed") -> None:
    for line in lines:
        print(f"{about}:", line)
