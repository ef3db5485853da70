"""Figures as files: PNG, SVG, and their data as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any, Literal


def as_bytes(figure: Any, kind: Literal["png", "svg"]) -> bytes:
    """A matplotlib figure as a file's content; equal figures give equal bytes."""
    from matplotlib import rc_context

    out = io.BytesIO()
    # Without these an SVG holds the date and names drawn at random.
    options: dict[str, Any] = {"png": {"metadata": {"Software": None}, "pil_kwargs": {"optimize": True}}}.get(
        kind, {"metadata": {"Date": None, "Creator": None}}
    )
    with rc_context({"svg.hashsalt": "specviz", "svg.fonttype": "none"}):
        figure.savefig(out, format=kind, **options)
    return out.getvalue()


def table(rows: Iterable[Sequence[Any]]) -> str:
    """Rows as CSV; a number keeps every digit, NaN is an empty field."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerows([_field(value) for value in row] for row in rows)
    return out.getvalue()


def _field(value: Any) -> Any:
    value = value.item() if hasattr(value, "item") else value
    return "" if value is None or value != value else value
