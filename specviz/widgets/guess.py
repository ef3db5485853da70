"""A guess before the answer: a question, a slider or a field, and a button; only a press computes the answer."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import anywidget
import traitlets

from specviz.figures.question import question_picture
from specviz.widgets.explorer import Explorer, ExplorerView
from specviz.widgets.lives import ClosedError, Displayed
from specviz.widgets.specification import as_number

_HERE = Path(__file__).parent
_HINT = "Run this cell, make your guess, then press Reveal."
_NEAR = 1.5  # a guess counts as right within this factor, where nothing else is asked for
_log = logging.getLogger("specviz.widgets")

Scale = Literal["linear", "log", "field"]


@dataclass(frozen=True)
class Revealed:
    """A guess beside the answer. `solved` says whether it counts as right, `notice` what to notice in the answer."""

    guess: float
    answer: float
    solved: bool
    message: str
    notice: str = ""

    def __repr__(self) -> str:
        return f"{'✓' if self.solved else '✗'} {self.message} {self.notice}".strip()


class GuessView(anywidget.AnyWidget):
    """The question on the page. It knows nothing of the answer until `result` has it; `seq` counts the replies."""

    _esm = "".join((_HERE / f"{name}.js").read_text("utf-8") for name in ("kernel", "guess"))
    _css = "".join((_HERE / f"{name}.css").read_text("utf-8") for name in ("kernel", "guess"))

    question = traitlets.Unicode().tag(sync=True)
    unit = traitlets.Unicode().tag(sync=True)
    ticks: Any = traitlets.List().tag(sync=True)  # the slider's numbers; none is a field to type into
    texts: Any = traitlets.List().tag(sync=True)  # the same, with their unit
    result: Any = traitlets.Dict().tag(sync=True)
    message = traitlets.Unicode().tag(sync=True)  # what went wrong
    seq = traitlets.Int(0).tag(sync=True)


class Guess(Displayed):
    """A question that is answered when its reader has guessed: `Guess(question, answer).view` is displayed.

    question  one sentence
    answer    a function without arguments, called at each Reveal and never before; it returns the measured number
    unit      of guess and answer, such as "%", "times" or "pixels"; the number 1 drops its last s
    low, high  the slider's ends; a field does not use them
    scale     "linear" or "log" for a slider, "field" for a field to type a number of any size into
    within    how far off a guess may be to count as right, in the unit; None: a factor of 1.5 either way
    notice    a sentence on what to notice, shown with the answer: a text, or a function that is then called for it
    explorer  an explorer whose curves would give the answer away: they are held back until it is revealed

    Nothing of the answer is in the notebook, the widget's state or its still picture before it is revealed.
    `reveal(guess)` does in code what the button does, and returns a `Revealed`.
    """

    def __init__(
        self,
        question: str,
        answer: Callable[[], Any],
        *,
        unit: str = "",
        low: float = 0.0,
        high: float = 100.0,
        scale: Scale = "linear",
        within: float | None = None,
        notice: str | Callable[[], str] = "",
        explorer: Explorer | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(question, str) or not question.strip():
            raise ValueError(f"question={question!r} must be a sentence that asks for a number")
        if not callable(answer):
            raise TypeError(f"answer={answer!r} must be a function without arguments: lambda: ... computes it later")
        if scale not in get_args(Scale):
            raise ValueError(f"scale={scale!r} is not one of {', '.join(get_args(Scale))}")
        if within is not None and not _finite("within", within) >= 0:
            raise ValueError(f"within={within!r} must be 0 or more, or None for a factor of {_NEAR:g}")
        self.question, self.unit, self.scale, self.within = question, unit, scale, within
        self._answer, self._notice, self._explorer = answer, notice, explorer
        self.ticks = _ticks(scale, _finite("low", low), _finite("high", high))
        texts = [self._in_words(tick) for tick in self.ticks]
        self.panel = GuessView(question=question, unit=unit, ticks=self.ticks, texts=texts)
        self.panel.on_msg(self._receive)
        self.view = ExplorerView([self.panel], self.still, self.summary, self.alt_text, look="specviz-guess-view")
        self._own_widgets()
        if explorer is not None:
            explorer.hold_curves("The curves are drawn when you have revealed the answer to the question above.")

    def reveal(self, guess: Any) -> Revealed:
        """Compute the answer and compare a guess with it, also on the page. ValueError unless the guess is a number."""
        number = _usable(guess)
        if number is None:
            raise ValueError(f"a guess is a number{self._of_unit()}, as in reveal(3), not {guess!r}")
        measured = self._answer()
        answer = _usable(measured)
        if answer is None:
            raise ValueError(f"the answer should be a number, and it came out as {measured!r}")
        solved, words = self._compared(number, answer)
        message = f"Measured: {self._in_words(answer)}. You guessed {self._in_words(number)}: {words}."
        notice = self._notice() if callable(self._notice) else self._notice
        revealed = Revealed(number, answer, solved, message, notice)
        self._reply(self._drawn(revealed))
        if self._explorer is not None:
            self._explorer.draw_curves()
        return revealed

    def still(self) -> bytes:
        """The question as a PNG file, without the answer, whatever was revealed."""
        ends = (self.panel.texts[0], self.panel.texts[-1]) if self.ticks else None
        return question_picture(self.question, ends, _HINT)

    def summary(self) -> str:
        """The question in one line."""
        return f"Guess: {self.question}{self._range()} {_HINT}"

    def alt_text(self) -> str:
        """What the still picture shows, in words."""
        return f"A question without its answer. {self.question}{self._range()} {_HINT}"

    # --- on the page

    def _receive(self, _: Any, content: dict[str, Any], buffers: Any) -> None:
        """Answer the button; the page shows the message of an error."""
        if content.get("type") != "reveal":
            return
        try:
            self.reveal(content.get("value"))
        except ClosedError:
            raise
        except (ValueError, TypeError) as error:
            _log.info("%s: %s", self.question, error, exc_info=True)
            self._reply({}, str(error))
        except Exception as error:
            _log.exception("%s: the answer could not be computed", self.question)
            self._reply({}, f"The answer could not be computed: {type(error).__name__}: {error}")

    def _reply(self, result: dict[str, Any], message: str = "") -> None:
        with self.panel.hold_sync():
            self.panel.result, self.panel.message = result, message
            self.panel.seq += 1

    def _drawn(self, revealed: Revealed) -> dict[str, Any]:
        """What the page needs to draw guess and answer on one scale: places of both, and of its marks, from 0 to 1."""
        both = (revealed.guess, revealed.answer)
        ends = (self.ticks[0], self.ticks[-1]) if self.ticks else (0.0, 1.1 * max(*both, 0.0) or 1.0)
        low, high = min(*ends, *both), max(*ends, *both)
        logarithmic = self.scale == "log" and low > 0

        def place(number: float) -> float:
            if logarithmic:
                return math.log(number / low) / math.log(high / low)
            return (number - low) / (high - low)

        marks = _decades(low, high) if logarithmic else _round_numbers(low, high)
        return {
            "solved": revealed.solved,
            "message": revealed.message,
            "notice": revealed.notice,
            "rows": [
                ["your guess", self._in_words(revealed.guess), place(revealed.guess)],
                ["measured", self._in_words(revealed.answer), place(revealed.answer)],
            ],
            "marks": [[place(mark), in_digits(mark)] for mark in marks],
        }

    # --- in words

    def _compared(self, guess: float, answer: float) -> tuple[bool, str]:
        """Whether a guess counts as right, and how far off it is."""
        way = "too high" if guess > answer else "too low"
        if guess == answer or (in_digits(guess) == in_digits(answer) and self.within is None):
            return True, "exactly right"
        name = "points" if self.unit == "%" else self.unit
        words = f"{self._with_unit(abs(guess - answer), name)} {way}"
        if self.within is None and guess > 0 < answer:
            factor = max(guess / answer, answer / guess)
            solved, right = factor <= _NEAR, f"within a factor of {_NEAR:g}"
            if factor >= 1.095:
                words = f"{in_digits(factor, 2 if factor < 1000 else 3)} times {way}"
        else:
            within = self.within or 0.0
            solved, right = abs(guess - answer) <= within, f"within {self._with_unit(within, name)}"
        return solved, f"{words}, {right}, which counts as right" if solved else words

    def _in_words(self, number: float) -> str:
        return self._with_unit(number, self.unit)

    @staticmethod
    def _with_unit(number: float, unit: str) -> str:
        return f"{in_digits(number)} {unit.removesuffix('s') if number == 1 else unit}".strip()

    def _of_unit(self) -> str:
        return f" in {self.unit}" if self.unit else ""

    def _range(self) -> str:
        return f" From {self.panel.texts[0]} to {self.panel.texts[-1]}." if self.ticks else ""


def in_digits(number: float, digits: int = 3) -> str:
    """A number with so many significant digits, as people write it: 0.263, 97.8, 1,050, 12,300."""
    if number == 0 or not math.isfinite(number):
        return f"{number:g}".replace("-0", "0")
    exponent = math.floor(math.log10(abs(number)))
    if not -6 <= exponent < 12:
        return f"{number:.{digits - 1}e}"
    rounded = round(number, digits - 1 - exponent)
    places = max(digits - 1 - exponent, 0)
    text = f"{rounded:,.{places}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _usable(value: Any) -> float | None:
    """A number as a float; None for anything else, and for numbers that are too large for any scale."""
    number = as_number(value)
    return number if number is not None and (number == 0 or 1e-100 <= abs(number) <= 1e100) else None


def _finite(name: str, value: Any) -> float:
    number = _usable(value)
    if number is None:
        raise ValueError(f"{name}={value!r} must be a number")
    return number


def _ticks(scale: Scale, low: float, high: float) -> list[float]:
    """The numbers that a slider has: ten a decade, or about a hundred at equal steps."""
    if scale == "field":
        return []
    if not low < high:
        raise ValueError(f"low={low:g} must be less than high={high:g}")
    if scale == "linear":
        step = _round_step(high - low, 100)
        inner = [step * n for n in range(math.floor(low / step), math.ceil(high / step) + 1)]
    elif low <= 0:
        raise ValueError(f"low={low:g} must be more than 0 on a logarithmic scale")
    else:
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        inner = [float(f"{m}e{d}") for d in decades for m in (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8)]
    return [low, *(float(f"{tick:.6g}") for tick in inner if low < tick < high), high]


def _round_step(span: float, most: int) -> float:
    """The smallest of 1, 2, 5, 10, 20, ... that goes at most so often into a span."""
    decade = 10.0 ** math.floor(math.log10(span / most))
    return next(decade * m for m in (1, 2, 5, 10, 20) if span / (decade * m) <= most * (1 + 1e-9))


def _round_numbers(low: float, high: float) -> list[float]:
    step = _round_step(high - low, 6)
    return [float(f"{step * n:.6g}") for n in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _decades(low: float, high: float) -> list[float]:
    """Powers of ten within a range, at most eight; its ends where there are fewer than two."""
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    every = max(math.ceil((last - first + 1) / 8), 1)
    powers = [10.0**d for d in range(first, last + 1, every)]
    return powers if len(powers) > 1 else [low, high]
