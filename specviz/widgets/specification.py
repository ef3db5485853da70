"""An explorer as data: its controls, panels and facts; and what it shows, as the result of a pure function."""

from __future__ import annotations

import math
import string
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from spectral_kernels.dispatch import real
from torch import Tensor

from specviz.figures import LinePlot, Panel, Table
from specviz.widgets.pictures import Reader, pixel

MANY = 30  # options that an error names

# --- controls


@dataclass(frozen=True, kw_only=True)
class _Conditional:
    """When a control is shown, and when it can be moved: while another control has a certain value; None: always."""

    shown_when: tuple[str, Any] | None = None
    enabled_when: tuple[str, Any] | None = None


@dataclass(frozen=True)
class Slider(_Conditional):
    """A number: low, low + step, ..., high, or one of `values`. Numbers between two steps are accepted, too.

    open_ended  numbers above `high` are accepted, with the handle at its end
    at_rest     the explorer computes only when the handle is let go
    widths      in pixels: of the slider, and within it of its name; and of the number beside it
    """

    name: str
    low: float
    high: float
    step: float
    value: float
    unit: str = ""
    open_ended: bool = False
    values: tuple[float, ...] = ()
    at_rest: bool = False
    widths: tuple[int, int, int] = (340, 90, 110)

    @property
    def last(self) -> int:
        """The last tick; the first is 0."""
        return len(self.values) - 1 if self.values else max(round((self.high - self.low) / self.step), 0)

    def tick(self, number: float) -> int:
        """The tick that is nearest to a number."""
        if self.values:
            return min(range(len(self.values)), key=lambda tick: abs(self.values[tick] - number))
        return min(round((number - self.low) / self.step), self.last)

    def real(self, tick: int) -> float:
        """The number at a tick."""
        tick = min(tick, self.last)
        if self.values:
            return self.values[tick]
        if self.step < 1:  # 18 / 20 is 0.9, while 18 * 0.05 need not be
            ticks_per_one = round(1 / self.step)
            return (round(self.low * ticks_per_one) + tick) / ticks_per_one
        return self.low + tick * self.step

    def check(self, name: str, value: Any) -> float:
        """A number, or an array or tensor of one, as a float; ValueError unless it is a number in the range."""
        number = as_number(value)
        for own in self.values:
            if number is not None and math.isclose(own, number, rel_tol=1e-6):  # float32's rounding
                return own
        if self.values:
            raise ValueError(f"{self.name}={value!r} is not one of {', '.join(f'{v:g}' for v in self.values)}")
        top = math.inf if self.open_ended else self.high
        if number is None or not self.low <= number <= top or not math.isfinite(number):
            span = f">= {self.low:g}" if self.open_ended else f"from {self.low:g} to {self.high:g}"
            raise ValueError(f"{self.name}={value!r} must be a number {span}")
        return number

    def fit(self, number: float) -> float:
        """The nearest number in the range."""
        if self.values:
            return self.values[self.tick(number)]
        return max(number if self.open_ended else min(number, self.high), self.low)


@dataclass(frozen=True)
class Entry:
    """One row of a column: its full name, the short one that is shown, its kind and size, its depth, and a bar.

    share  the bar's length, from 0 to 1; None: no bar
    """

    name: str
    short: str = ""
    kind: str = ""
    detail: str = ""
    depth: int = 0
    share: float | None = None


@dataclass(frozen=True)
class Choice(_Conditional):
    """One of some options, each a value or a pair (text, value): buttons, a list, a column, or a tick for yes or no.

    width    in pixels, of each button or of the list; name_style: CSS of the name beside it
    measure  of a column, whose texts are entries: what their bars show
    """

    name: str
    options: tuple[Any, ...]
    value: Any = None  # the first
    look: Literal["buttons", "list", "column", "tick"] = "buttons"
    width: int | None = None
    name_style: Mapping[str, str] = field(default_factory=dict)
    tooltips: tuple[str, ...] = ()
    measure: str = ""

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("buttons to choose by have a Label beside them, which names them")

    def check(self, name: str, value: Any) -> Any:
        """The option that equals a value; ValueError if there is none."""
        value = bool(value) if isinstance(value, np.bool_) else value
        number = as_number(value)
        for option in self.values():
            if option is value or (isinstance(value, str) and option == value):
                return option
            if not isinstance(option, str) and number is not None and option == number:
                return option
        *first, last = map(str, self.values())
        some = [*first[:MANY], "...", last] if len(first) > MANY else [*first, last]
        raise ValueError(f"{name}={value!r} is not one of {', '.join(some)}")

    def fit(self, value: Any) -> Any:
        """The value if it is an option, else the first one."""
        return value if value in self.values() else self.values()[0]

    def values(self) -> list[Any]:
        """The options without their texts."""
        return [option[1] if isinstance(option, tuple) else option for option in self.options]


Control = Slider | Choice


def as_number(value: Any) -> float | None:
    """A real number as a float; None for anything else."""
    try:
        return real(value, "value")
    except TypeError:
        return None


@dataclass(frozen=True)
class Specification:
    """The parts of an explorer that never change.

    controls  by the name that `set`, `facts` and `compute` take; a control on which others' ranges depend comes first
    columns   names of controls beside each other, or columns of them; a column of columns keeps these together
    beside    whether curves stand beside each other where there is room
    place     of the panels, with the facts: above the curves, below them, or on their left
    arranged  panels as they find room, in "pairs" as large as the page lets them be, or small in a "strip"
    at_once   whether curves move with the slider, not only when it rests: for curves of few points
    aside     a control on the left of everything else, such as a column; in a narrow window it is above
    """

    label: str
    controls: Mapping[str, Control]
    columns: tuple[Any, ...]
    panels: tuple[Panel, ...] = ()
    beside: bool = False
    place: Literal["above", "below", "left"] = "above"
    arranged: Literal["row", "pairs", "strip"] = "row"
    at_once: bool = False
    aside: str = ""


# --- what is shown


@dataclass(frozen=True)
class Fact:
    """A number, and how it is shown.

    key     its name in `facts()`; "" for a fact that is only shown
    label   the name that is shown; "" for a fact that is not shown
    format  Python's format for the value, "{:.2f}", or with other facts' values by their keys, "{kept:,} of {total:,}".
            There are formats beside Python's: " %" and " points" after a format, "count" and "bytes". A fact that is
            None is shown only if its format does not use the value
    """

    key: str = ""
    value: Any = None
    label: str = ""
    format: str = "{}"
    hint: str = ""


FORMER_KEYS = {"density": "share_kept", "kept": "share_kept"}  # of facts, unless there is a fact with the former key


class Facts(dict[str, Any]):
    """Plain numbers by key. A former key gives the number of the new one, with a DeprecationWarning that names it."""

    def __missing__(self, key: str) -> Any:
        new = FORMER_KEYS.get(key)
        if new is None or new not in self:
            raise KeyError(key)
        warnings.warn(f"the fact {key!r} is now {new!r}", DeprecationWarning, stacklevel=2)
        return self[new]


@dataclass(frozen=True)
class View:
    """What an explorer shows for some values of its controls.

    frames   by panel: (H, W) uint8 through its colour table, (H, W, 3) uint8, or (H, W) bool, which lights the high bit
             of its still frame
    facts    in the order in which they are shown
    curves   a function that draws them; they keep their zoom as long as their names and number stay the same
    probe    by panel, the text for a frame's pixel: a reader, or the tensor (..., H, W) that has its values
    still    frames that change with the picture or a choice only: the same dict as before is not sent again
    looks    by panel, what differs from the specification, such as the ends of its colour bar
    pick     by panel, the controls' values that a click chooses
    markers  by panel, rings around pixels
    under_way  what is lost if the kernel ends now
    sentence   what the figure shows, in words
    table      more numbers than facts, below the curves
    """

    frames: Mapping[str, np.ndarray] = field(default_factory=dict)
    facts: Sequence[Fact] = ()
    curves: Callable[[], Sequence[LinePlot]] = tuple
    probe: Mapping[str, Reader | Tensor] = field(default_factory=dict)
    still: Mapping[str, np.ndarray] = field(default_factory=dict)
    looks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    pick: Mapping[str, Callable[[int, int], dict[str, Any]]] = field(default_factory=dict)
    markers: Mapping[str, list[dict[str, Any]]] = field(default_factory=dict)
    under_way: str = ""
    sentence: str = ""
    table: Table | None = None

    def read(self, panel: str, x: int, y: int) -> str:
        """The text for frame pixel (x, y) of a panel; "" where there is none."""
        reader = self.probe.get(panel, lambda x, y: "")
        return (pixel(reader) if isinstance(reader, Tensor) else reader)(x, y)

    def values(self) -> Facts:
        """Plain numbers by key."""
        return Facts({fact.key: fact.value for fact in self.facts if fact.key})

    def rows(self) -> list[list[str]]:
        """The facts that are shown: [label, text, hint]."""
        values = self.values()
        return [
            [fact.label, _formatter.vformat(fact.format, (fact.value,), values), fact.hint]
            for fact in self.facts
            if fact.label and not (fact.value is None and "{" in fact.format)
        ]


class _Formatter(string.Formatter):
    def format_field(self, value: Any, format_spec: str) -> str:
        if format_spec == "bytes":
            return human_bytes(value)
        if format_spec == "count":
            return human_count(value)
        if format_spec.endswith((" %", " points")):
            number, _, unit = format_spec.partition(" ")
            return f"{100 * value:{number}} {unit}"
        return format(value, format_spec)


_formatter = _Formatter()


def human_bytes(count: float) -> str:
    """Bytes for people: 1.02 MiB."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.4g} {unit}"
        count /= 1024
    return f"{count:.4g} GiB"


def human_count(count: int) -> str:
    """Counts for people: 12,345, then 1.23 million."""
    return f"{count:,}" if count < 1_000_000 else f"{count / 1e6:.3g} million"
