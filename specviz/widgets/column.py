"""The column: a choice of many, as rows below each other, to filter and to walk through with the arrow keys."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from specviz.widgets.specification import Entry

_HERE = Path(__file__).parent


class Column(anywidget.AnyWidget):
    """A list of entries that scrolls. `options` are pairs (Entry, value); `value` is the chosen one, a text.

    Filtering is done in the browser: by words of an entry's name and kind.
    """

    _esm = "".join((_HERE / f"{name}.js").read_text("utf-8") for name in ("kernel", "column"))
    _css = (_HERE / "column.css").read_text("utf-8")

    description = traitlets.Unicode().tag(sync=True)
    measure = traitlets.Unicode().tag(sync=True)  # what the bars show
    entries: Any = traitlets.List().tag(sync=True)
    value = traitlets.Unicode().tag(sync=True)
    disabled = traitlets.Bool(False).tag(sync=True)

    def __init__(self, description: str, options: tuple[tuple[Entry, str], ...], measure: str) -> None:
        self._options: tuple[tuple[Entry, str], ...] = ()
        super().__init__(description=description, measure=measure)
        self.options = options

    @property
    def options(self) -> tuple[tuple[Entry, str], ...]:
        """The entries, each with its value."""
        return self._options

    @options.setter
    def options(self, options: tuple[tuple[Entry, str], ...]) -> None:
        self._options = options
        self.entries = [asdict(entry) | {"value": value} for entry, value in options]
