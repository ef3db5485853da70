"""What all explorers share: controls in real units, one refresh path, errors shown where the user looks."""

from __future__ import annotations

import asyncio
import logging
import math
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import ipywidgets as ipw
import numpy as np
import torch
from spectral_kernels.cores import torch_threads
from spectral_kernels.dispatch import real
from torch import Tensor

from specviz.datasets import photo_from, photo_within
from specviz.figures import MAX_SHOWN, Kind, LinePlot, Panel, still_picture, table, to_bytes
from specviz.widgets.export import ExportButtons
from specviz.widgets.lines import LinesView
from specviz.widgets.lives import ClosedError, Displayed
from specviz.widgets.panels import PanelsView
from specviz.widgets.turns import turn
from specviz.widgets.upload import PictureUpload

LINES_WAIT, LINES_WAIT_AT_MOST = 0.12, 0.6  # seconds
# Of an uploaded picture; more is scaled down. 1365 x 1024: on two cores a move of a slider takes about half a second.
QUICK_PIXELS = 4 * 1024 * 1024 // 3
_log = logging.getLogger("specviz.widgets")


class GridSlider(ipw.IntSlider):
    """A slider over low, low + step, ..., high in real units.

    It is an IntSlider whose ticks are mapped here, because a FloatSlider writes rounded values back while
    it is being dragged (ipywidgets issue 3951). `real` is the value in real units; setting it to a number
    between two ticks keeps that number and moves the handle to the nearest tick; `open_ended` admits numbers
    above `high` too, with the handle at its end.
    """

    def __init__(
        self,
        name: str,
        low: float,
        high: float,
        step: float,
        value: float,
        unit: str = "",
        open_ended: bool = False,
    ) -> None:
        self.name, self.low, self.high, self._grid, self.unit = name, low, high, step, unit
        self.open_ended = open_ended
        # Decimal steps such as 0.05 are inverted exactly: 18 / 20 is 0.9, while 18 * 0.05 need not be.
        self._ticks_per_one = round(1 / step) if step < 1 else None
        self._real = value
        super().__init__(
            min=0,
            max=round((high - low) / step),
            value=self._tick(value),
            description=name,
            readout=False,
            continuous_update=True,
            layout=ipw.Layout(width="340px"),
            style={"description_width": "90px"},
        )
        self._class = f"specviz-handle-{self.model_id}"
        self.add_class(self._class)
        self.text = ipw.Label(self._text(), layout=ipw.Layout(width="110px"))
        self.observe(self._moved, "value")

    def _tick(self, real: float) -> int:
        return min(round((real - self.low) / self._grid), round((self.high - self.low) / self._grid))

    def _at(self, tick: int) -> float:
        if self._ticks_per_one:
            return (round(self.low * self._ticks_per_one) + tick) / self._ticks_per_one
        return self.low + tick * self._grid

    def _text(self) -> str:
        return f"{self._real:g} {self.unit}".strip()

    def _moved(self, change: Any) -> None:
        if self._tick(self._real) != change["new"]:
            self._real = self._at(change["new"])
        self.text.value = self._text()

    @property
    def real(self) -> float:
        return self._real

    @real.setter
    def real(self, value: Any) -> None:
        self._real = self.check(value)
        self.value = self._tick(self._real)
        self.text.value = self._text()

    def check(self, value: Any) -> float:
        """A number of Python or NumPy, or a tensor of one, as a float; ValueError for what is none in the range."""
        top = math.inf if self.open_ended else self.high
        number = as_number(value)
        if number is None or not self.low <= number <= top or not math.isfinite(number):
            span = f">= {self.low:g}" if self.open_ended else f"from {self.low:g} to {self.high:g}"
            raise ValueError(f"{self.name}={value!r} must be a number {span}")
        return number

    def resize(self, low: float, high: float) -> None:
        """Change the range, keeping the value as far as it fits."""
        real = min(max(self._real, low), high)
        self.low, self.high = low, high
        self._real = real
        self.max = max(round((high - low) / self._grid), 0)
        self.value = self._tick(real)
        self.text.value = self._text()

    def row(self) -> ipw.HBox:
        """The slider with its value in real units beside it."""
        return ipw.HBox([self, self.text])

    def accessible(self) -> dict[str, str]:
        """What a screen reader says at the handle."""
        return {"selector": f".{self._class} .noUi-handle", "name": self.name, "text": self._text()}


class ExplorerView(ipw.VBox):
    """The displayed widget. Its mime bundle carries a still picture for readers without a kernel, and its words."""

    def __init__(
        self,
        children: list[Any],
        still: Callable[[], bytes],
        summary: Callable[[], str],
        alt_text: Callable[[], str],
    ) -> None:
        super().__init__(children, layout=ipw.Layout(width="100%"))
        self.add_class("specviz-explorer")
        self._still, self._summary, self._alt_text = still, summary, alt_text

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        bundle = super()._repr_mimebundle_(**kwargs)
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle, {})
        if data is None:
            return bundle
        data |= {"image/png": self._still(), "text/plain": self._summary()}
        return data, metadata | {"image/png": {"alt": self._alt_text()}}


class Explorer(Displayed):
    """Base of the explorers: a picture, controls, panels, curves and facts.

    A subclass names its controls as attributes and implements `_prepare(image)` (once a picture),
    `_frames()` (at each move) and `facts()`. `e.set(name=value)` sets controls in real units;
    `e.load(source)` shows another picture; `e.view` is the widget to display; `e.close()` frees all of it.

    Explorers take turns, whichever threads the browser's messages and the cells come on: one computes at a time in a
    process. Moves that come meanwhile wait in the browser, which then sends the last value only.
    """

    label = "Explorer"
    takes_pictures = True  # False: it shows something else, and `load` and the upload button have no place

    def __init__(self) -> None:
        super().__init__()
        self.panels = PanelsView(self.label)
        self.panels.on_probe = self._probe
        self.panels.on_pick = lambda panel, x, y: self._guarded(lambda: self._pick(panel, x, y))
        self.panels.observe(lambda change: self._theme(change["new"]), "dark")
        self.lines: list[LinesView] = []
        self.image: Tensor | None = None  # (H, W) or (3, H, W), the picture on screen
        self._quiet = False
        self._note = ""  # what there is to say of the picture on screen
        self._loops: list[asyncio.AbstractEventLoop] = []  # of the last callback's thread, and of the first's
        self._redraws_asked = 0
        self._redraw_by: float | None = None  # at the latest, while one is due
        self._specs: list[Panel] = []
        self._described_for: Any = None
        self._still_frames: dict[str, np.ndarray] = {}
        self._last_frames: dict[str, np.ndarray] = {}
        if self.takes_pictures:
            self.upload = PictureUpload("Your picture")
            self.upload.observe(self._uploaded, "value")

    # --- what a subclass provides

    def _controls(self) -> dict[str, Any]:
        """Widgets by the name that `set` takes."""
        raise NotImplementedError

    def _prepare(self, image: Tensor) -> None:
        """Take a new, checked picture; raise before changing anything if it will not do."""
        raise NotImplementedError

    def _describe(self) -> tuple[list[Panel], dict[str, np.ndarray]]:
        """The panels and their still frames."""
        raise NotImplementedError

    def _describes(self) -> Any:
        """What the description depends on besides the picture, such as a norm."""
        return ()

    def _frames(self) -> dict[str, Any]:
        """Recompute: {"frames": ..., "facts": ..., "markers": ..., "under_way": ...} for `PanelsView.show`."""
        raise NotImplementedError

    def _plots(self) -> list[LinePlot]:
        """The curves to show below the panels, in the order of `lines`."""
        return []

    def facts(self) -> dict[str, Any]:
        """Plain numbers for what is on screen."""
        raise NotImplementedError

    def _probe(self, panel: str, x: int, y: int) -> str:
        """What to say about frame pixel (x, y) of a panel."""
        return ""

    def _pick(self, panel: str, x: int, y: int) -> None:
        """React to a click on frame pixel (x, y) of a panel."""

    # --- the shared machinery

    def _at_once(self) -> list[ipw.Widget]:
        return [self.upload] if self.takes_pictures else []

    def _assemble(self, image: Any, controls: list[Any]) -> None:
        """Lay out the view and show the first picture; a subclass calls it last in its constructor."""
        for control in self._controls().values():
            control.observe(lambda change: self._refresh(), "value")
        self.lines = [LinesView(plot) for plot in self._plots()]
        if self.takes_pictures:
            controls = [*controls, self.upload]
        self.export = ExportButtons(self.label, self._file)
        self._groups = _groups(controls)
        row = ipw.HBox(controls, layout=ipw.Layout(flex_flow="row wrap"))
        plots = [view.figure for view in self.lines]
        self.view = ExplorerView(
            [row, self.panels, *plots, self.export], self._still_picture, self.summary, self.alt_text
        )
        self._own_widgets()
        if self.takes_pictures:
            self.load(image)
        else:
            self._refresh()

    def set(self, **values: Any) -> None:
        """Set controls in real units, e.g. `set(beta=0.9, norm="ortho")`, and refresh once.

        Numbers may be Python's, NumPy's or tensors of one number. ValueError, and nothing set, if one does not fit.
        """
        controls = self._controls()
        for name in values:
            if name not in controls:
                raise ValueError(f"{type(self).__name__} has no control {name!r}; it has {', '.join(controls)}")
            values[name] = _fitting(name, controls[name], values[name])
        with self._silently():
            for name, value in values.items():
                setattr(controls[name], "real" if isinstance(controls[name], GridSlider) else "value", value)
        self._refresh()

    def load(self, source: Any) -> None:
        """Show another picture: anything `datasets.photo_from` takes. A bad one shows a message instead."""
        self._guarded(lambda: self._take(photo_from(source)))

    def _take(self, image: Tensor, note: str = "") -> None:
        """Show a checked picture, with what there is to say of it."""
        with self._silently():
            self._prepare(image)
        self.image, self._note = image, note
        self._described_for = None
        self._refresh()

    def _uploaded(self, change: Any) -> None:
        """Show the picture that came from the browser, scaled down where it would make the sliders slow."""
        if not change["new"]:
            return
        file, name = change["new"][0], change["new"][0]["name"]

        def take() -> None:
            # The file is read out of turn: meanwhile the other explorers' sliders go on.
            image, (height, width) = photo_within(bytes(file["content"]), QUICK_PIXELS, name)
            h, w = image.shape[-2:]
            scaled = f"{name}: scaled from {width} x {height} to {w} x {h}, so that the sliders stay quick"
            with turn():
                if not self.closed:
                    self._take(image, scaled if (h, w) != (height, width) else "")

        self._guarded(take)
        change["owner"].value = ()  # so that the same file can be chosen again

    @contextmanager
    def _silently(self) -> Iterator[None]:
        with turn():
            before, self._quiet = self._quiet, True
            try:
                yield
            finally:
                self._quiet = before

    def _guarded(self, action: Callable[[], None]) -> None:
        """Run a callback; what goes wrong is said in the widget, and the last good picture stays.

        The traceback goes to the log "specviz.widgets": as an error, or, of what is refused in words, as information.
        """
        try:
            action()
        except ClosedError:
            raise
        except (ValueError, TypeError) as error:
            _log.info("%s: %s", self.label, error, exc_info=True)
            self._say(str(error))
        except Exception as error:
            _log.exception("%s: this should not have happened", self.label)
            self._say(f"This should not have happened: {type(error).__name__}: {error}")

    def _say(self, text: str) -> None:
        with turn():
            if not self.closed:
                self.panels.say(text)

    def _refresh(self) -> None:
        self._note_loop()
        if not self._quiet and not (self.takes_pictures and self.image is None):
            self._guarded(self._show)

    def _show(self) -> None:
        key, before = self._describes(), (self._specs, self._still_frames)
        stale = self._described_for != key  # the picture changed, or what its description depends on
        try:
            with _one_thread(self._full_size()):
                if stale:
                    self._specs, self._still_frames = self._describe()
                shown = self._frames()
        except BaseException:
            self._specs, self._still_frames = before  # of the picture that stays on screen
            raise
        self._last_frames = shown["frames"]
        controls = [c.accessible() for c in self._controls().values() if isinstance(c, GridSlider)]
        with self.panels.hold_sync():  # in one message: new panels do not fit the old frames
            if stale:
                self.panels.describe(self._specs)
            self.panels.show(
                shown["frames"],
                self._still_frames if stale else None,
                full_size=self._full_size(),
                facts=shown["facts"],
                markers=shown.get("markers", {}),
                controls=controls + self._groups,
                message="",
                note=self._note,
                under_way=shown.get("under_way", ""),
            )
        self._described_for = key
        self._redraw_lines_soon()

    def _full_size(self) -> tuple[int, int] | None:
        """(H, W) of the picture that the frames stand for; None where each is small and shown whole."""
        assert self.image is not None
        return self.image.shape[-2], self.image.shape[-1]

    def _note_loop(self) -> None:
        """Keep the event loop that this thread runs, if it runs one: the kernel's own, or that of a subshell."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return
        if loop not in self._loops[:1]:
            self._loops = [loop, *self._loops[-1:]]

    def _redraw_lines_soon(self) -> None:
        """Redraw the curves when the slider rests a moment, or a few times a second while it moves.

        plotly takes tens of milliseconds for a curve; at each move that would hold up the pictures. The timer is of
        the loop on this thread. It is never cancelled, since the next move may come on another thread: one that is no
        longer needed does nothing.
        """
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # a plain script: there is nobody to wait for
            return self._redraw_lines()
        now = time.monotonic()
        if self._redraw_by is None:
            self._redraw_by = now + LINES_WAIT_AT_MOST
        self._redraws_asked += 1
        number, last, own = self._redraws_asked, now + LINES_WAIT >= self._redraw_by, weakref.ref(self)

        def due() -> None:
            with turn():
                explorer = own()
                if explorer is None or explorer.closed or explorer._redraw_by is None:
                    return
                if last or number == explorer._redraws_asked:
                    explorer._guarded(explorer._redraw_lines)

        loop.call_later(min(LINES_WAIT, max(self._redraw_by - now, 0.0)), due)

    def _redraw_lines(self) -> None:
        self._redraw_by = None
        for view, plot in zip(self.lines, self._plots(), strict=True):
            view.show(plot)

    def _theme(self, dark: bool) -> None:
        for view in self.lines:
            view.set_dark(dark)

    def summary(self) -> str:
        """The facts in one line."""
        return f"{type(self).__name__}: " + "; ".join(f"{name} {value}" for name, value, *_ in self.panels.facts)

    def alt_text(self) -> str:
        """What the still picture shows, in words: pictures, curves, facts."""
        pictures = [f"{panel.title}: {panel.description}" for panel in self._specs]
        facts = "; ".join(f"{name} {value}" for name, value, *_ in self.panels.facts)
        return " ".join([f"{self.label}.", *pictures, *(plot.alt_text() for plot in self._plots()), facts]).strip()

    def csv(self) -> str:
        """The facts and the curves' points in one table: a fact has a name and a value, a point x, y and its band."""
        plots = self._plots()
        rows: list[list[Any]] = [["plot", "curve", "x axis", "x", "y axis", "y", "low", "high"]]
        rows += [["facts", name, None, None, None, value, None, None] for name, value in self.facts().items()]
        for plot in plots:
            for line in plot.lines:
                columns = [line.x, line.y] if line.low is None else [line.x, line.y, line.low, line.high]
                for x, y, *band in zip(*columns, strict=True):
                    rows.append([plot.title, line.name, plot.x_title, x, plot.y_title, y, *(band or [None, None])])
        return table(rows)

    def _file(self, kind: Kind) -> bytes:
        return self.csv().encode() if kind == "csv" else self._still_picture(kind)

    def _still_picture(self, kind: Literal["png", "svg"] = "png") -> bytes:
        frames = dict(self._still_frames)
        for key, frame in self._last_frames.items():
            frames[key] = frames[key] | frame.astype(np.uint8) << 7 if frame.dtype == np.bool_ else frame
        caption = "   ".join(f"{name}: {value}" for name, value, *_ in self.panels.facts)
        return still_picture(self._specs, frames, self._plots(), caption or self.panels.message, kind)


def _groups(widgets: Sequence[ipw.Widget], label: str = "") -> list[dict[str, str]]:
    """Where the groups of buttons among some widgets are on the page, and their names: the labels beside them."""
    found = []
    for widget in widgets:
        if isinstance(widget, ipw.Label):
            label = widget.value
        elif isinstance(widget, ipw.ToggleButtons):
            if not label:
                raise ValueError("buttons to choose by have a Label beside them, which names them")
            class_ = f"specviz-choice-{widget.model_id}"
            widget.add_class(class_)
            found.append({"selector": f".{class_}", "name": label})
        elif isinstance(widget, ipw.Box):
            found += _groups(widget.children)
    return found


def as_number(value: Any) -> float | None:
    """A real number as a float; None for what is none."""
    try:
        return real(value, "value")
    except TypeError:
        return None


def _fitting(name: str, control: Any, value: Any) -> Any:
    """The value as the control takes it: a float, one of its options, or a bool; ValueError if it does not fit."""
    if isinstance(control, GridSlider):
        return control.check(value)
    if isinstance(control, ipw.Checkbox):
        options = [True, False]
    elif hasattr(control, "options"):
        options = [o[1] if isinstance(o, tuple) else o for o in control.options]  # (label, value) or value
    else:
        return value
    value = bool(value) if isinstance(value, np.bool_) else value
    number = as_number(value)
    for option in options:
        if option is value or (isinstance(value, str) and option == value):
            return option
        if not isinstance(option, str) and number is not None and option == number:
            return option
    raise ValueError(f"{name}={value!r} is not one of {', '.join(map(str, options))}")


@contextmanager
def _one_thread(size: tuple[int, int] | None) -> Iterator[None]:
    """One thread for a small picture: between two moves torch's other threads fall asleep, and waking takes longer."""
    with torch_threads(1 if size is None or size[0] * size[1] <= 2**19 else None):
        yield


def shown_factor(image: Tensor) -> int:
    """How many pixels of a picture (..., H, W) stand in one shown pixel, along each side."""
    return math.ceil(max(image.shape[-2:]) / MAX_SHOWN)


def reduce_shown(image: Tensor, how: Literal["mean", "max"] = "mean") -> np.ndarray:
    """A picture small enough to send to the browser: (..., H, W) -> at most 1024 a side, by mean or maximum."""
    factor = shown_factor(image)
    if factor == 1:
        return image.numpy()
    pool = torch.nn.functional.avg_pool2d if how == "mean" else torch.nn.functional.max_pool2d
    shown = pool(image.reshape(1, -1, *image.shape[-2:]).float(), factor, ceil_mode=True)
    return shown.reshape(*image.shape[:-2], *shown.shape[-2:]).to(image.dtype).numpy()


def picture_bytes(image: Tensor) -> np.ndarray:
    """A photograph as a frame, brightness clipped to 0..1: (H, W) -> (h, w) for the table "gray", (3, H, W) -> RGB."""
    frame = to_bytes(reduce_shown(image), 0.0, 1.0)
    return frame if frame.ndim == 2 else np.ascontiguousarray(np.moveaxis(frame, 0, -1))


def picture_table(image: Tensor) -> str | None:
    """The colour table of a photograph's panel: grey has one, colour needs none."""
    return "gray" if image.ndim == 2 else None


def human_bytes(count: int) -> str:
    """Bytes for people: 1.02 MiB."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.4g} {unit}"
        count /= 1024  # type: ignore[assignment]
    return f"{count:.4g} GiB"


def human_count(count: int) -> str:
    """Counts for people: 12,345, then 1.23 million."""
    return f"{count:,}" if count < 1_000_000 else f"{count / 1e6:.3g} million"
