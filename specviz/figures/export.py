"""Figures as files: PNG, SVG, and their data as CSV."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

from specviz.extras import needs
from specviz.figures.text import for_spreadsheet
from specviz.files import replaced

Kind = Literal["png", "svg", "csv"]


class Still:
    """Base of the figures: a notebook shows a still picture, with an alternative text for readers who cannot see it."""

    def still(self) -> Any:
        """A matplotlib figure."""
        raise NotImplementedError

    def alt_text(self) -> str:
        """What the picture shows, in words."""
        raise NotImplementedError

    def _repr_png_(self) -> bytes:
        return as_bytes(self.still(), "png")

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        return {}, {"image/png": {"alt": self.alt_text()}}  # beside what `_repr_png_` gives


class Drawn(Protocol):
    """Anything that can be saved as a file: any figure, and Pictures."""

    def still(self) -> Any:
        """A matplotlib figure."""

    def csv(self) -> str:
        """Its numbers."""


class Figure(Drawn, Protocol):
    """A figure that plotly can show too: a LinePlot, a Matrix, Violins, a RankDiagram, a Forest.

    >>> t = np.linspace(0, 1, 100)
    >>> plot = sv.figures.LinePlot("A wave", "time, s", "height", [sv.figures.Line("sine", t, np.sin(2 * np.pi * t))])
    >>> figure: sv.figures.Figure = plot
    >>> sorted(figure.plotly(dark=False))
    ['data', 'layout']
    """

    @property
    def title(self) -> str: ...

    def alt_text(self) -> str:
        """Describe in words what the figure shows."""

    def plotly(self, dark: bool) -> dict[str, Any]:
        """Plotly's `data` and `layout`, for a light page or a dark one."""


def save(figure: Drawn, path: str | os.PathLike[str]) -> None:
    """Write a figure as PNG or SVG, or its numbers as CSV, depending on the path's suffix.

    An existing file is replaced, whole or not at all. Raises ValueError for any other suffix.

    >>> t = np.linspace(0, 1, 100)
    >>> plot = sv.figures.LinePlot("A wave", "time, s", "height", [sv.figures.Line("sine", t, np.sin(2 * np.pi * t))])
    >>> sv.figures.save(plot, "wave.csv")
    >>> len(open("wave.csv").readlines())
    101
    """
    path = Path(path)
    kind = path.suffix.lower().removeprefix(".")
    if kind not in get_args(Kind):
        raise ValueError(f"a figure cannot be saved as {path.name!r}: end its name in .png, .svg or .csv")
    content = file_content(figure, kind)  # type: ignore[arg-type]
    with replaced(path) as file:
        file.write(content)


def file_content(figure: Drawn, kind: Kind) -> bytes:
    r"""The bytes of a figure's file.

    >>> t = np.linspace(0, 1, 100)
    >>> plot = sv.figures.LinePlot("A wave", "time, s", "height", [sv.figures.Line("sine", t, np.sin(2 * np.pi * t))])
    >>> sv.figures.file_content(plot, "png")[:4]
    b'\x89PNG'
    """
    return figure.csv().encode() if kind == "csv" else as_bytes(figure.still(), kind)


def file_name(title: str, kind: Kind) -> str:
    """A name for a figure's file: its title's words, lower case, with dashes.

    >>> sv.figures.file_name("Share kept, by block", "svg")
    'share-kept-by-block.svg'
    """
    words = re.findall(r"\w+", title.lower().replace("_", " ").replace("'", ""))
    return f"{'-'.join(words)[:80].rstrip('-') or 'figure'}.{kind}"


def as_bytes(figure: Any, kind: Literal["png", "svg"]) -> bytes:
    """A matplotlib figure as a file's content; equal figures give equal bytes."""
    with needs("lab"):
        from matplotlib import rc_context

    out = io.BytesIO()
    # Without these an SVG holds the date and names drawn at random.
    options: dict[str, Any] = {"png": {"metadata": {"Software": None}, "pil_kwargs": {"optimize": True}}}.get(
        kind, {"metadata": {"Date": None, "Creator": None}}
    )
    with rc_context({"svg.hashsalt": "specviz", "svg.fonttype": "none"}):
        figure.savefig(out, format=kind, **options)
    return out.getvalue()


def sentence(title: str) -> str:
    """A title as a sentence of a text."""
    return title if title.endswith((".", "?", "!")) else f"{title}."


def table(rows: Iterable[Sequence[Any]]) -> str:
    """Rows as CSV text: numbers keep every digit, NaN is an empty field, and no text can act as a formula.

    >>> print(sv.figures.table([["beta", "share kept"], [0.5, 0.12]]), end="")
    beta,share kept
    0.5,0.12
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerows([_field(value) for value in row] for row in rows)
    return out.getvalue()


def _field(value: Any) -> Any:
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, str):
        return for_spreadsheet(value)
    return "" if value is None or value != value else value
