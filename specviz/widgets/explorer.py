"""The shell of all explorers: controls, one refresh path, curves, files, and errors shown where the user looks."""

from __future__ import annotations

import asyncio
import logging
import math
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any, ClassVar, Literal

import ipywidgets as ipw
import numpy as np
from spectral_kernels.cores import torch_threads
from torch import Tensor

from specviz.datasets import luminance, photo_from, photo_within
from specviz.figures import Kind, LinePlot, Panel, still_picture, table
from specviz.figures.still import Arranged
from specviz.widgets.controls import accessible, move, row_of, value_of, widget_of
from specviz.widgets.export import ExportButtons
from specviz.widgets.lines import LinesView
from specviz.widgets.lives import ClosedError, Displayed
from specviz.widgets.panels import PanelsView
from specviz.widgets.pictures import Picture
from specviz.widgets.specification import Control, Specification, View
from specviz.widgets.turns import receive_in_turn, turn
from specviz.widgets.upload import PictureUpload

LINES_WAIT, LINES_WAIT_AT_MOST = 0.12, 0.6  # seconds
# Of an uploaded picture; more is scaled down. 1365 x 1024: on two cores a move of a slider takes about half a second.
QUICK_PIXELS = 4 * 1024 * 1024 // 3
_log = logging.getLogger("specviz.widgets")


class ExplorerView(ipw.VBox):
    """The displayed widget. Its mime bundle carries a still picture for readers without a kernel, and its words."""

    def __init__(
        self,
        children: list[Any],
        still: Callable[[], bytes],
        summary: Callable[[], str],
        alt_text: Callable[[], str],
        look: str = "specviz-explorer",
    ) -> None:
        super().__init__(children, layout=ipw.Layout(width="100%"))
        self.add_class(look)
        self._still, self._summary, self._alt_text = still, summary, alt_text

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        bundle = super()._repr_mimebundle_(**kwargs)
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle, {})
        if data is None:
            return bundle
        data |= {"image/png": self._still(), "text/plain": self._summary()}
        return data, metadata | {"image/png": {"alt": self._alt_text()}}


class Explorer(Displayed):
    """Base of the explorers: a picture, or something else to look at; controls, panels, curves and facts.

    A subclass has a `specification` and `compute(source, **controls) -> View`, a pure function unless it measures or
    trains. `e.view` is the widget to display, and `e.close()` frees all of it. `e.set(name=value)` sets controls in
    real units; they are attributes, too. `e.load(source)` shows another picture. `e.facts()` gives plain numbers for
    what is on screen, {} while there is nothing; `e.facts(name=value)` gives them for these values of the controls, and
    the screen does not change.

    Explorers take turns: one at a time computes in a process, whichever threads run the cells and handle the browser's
    messages. Moves of a slider meanwhile wait in the browser, which then sends only the last value.
    """

    specification: ClassVar[Specification]
    takes_pictures: ClassVar[bool] = True  # False: there is no `load` and no upload button
    compute: Callable[..., View]

    def __init__(self, source: Any, **values: Any) -> None:
        super().__init__()
        specification = self.specification
        self.source: Any = None if self.takes_pictures else source  # what `compute` takes
        self.image: Tensor | None = None  # (H, W) or (3, H, W), the picture on screen
        self.shown: View | None = None
        self.panels = PanelsView(specification.label, arranged=specification.arranged)
        self.panels.on_probe = self.probe
        self.panels.on_pick = lambda panel, x, y: self._guarded(lambda: self._pick(panel, x, y))
        self.panels.observe(lambda change: self._theme(change["new"]), "dark")
        self.lines: list[LinesView] = []
        self._held = ipw.Label()  # its text stands where curves are held back
        self._quiet = False
        self._note = ""  # a remark on the picture on screen
        self._loops: list[asyncio.AbstractEventLoop] = []  # the last callback's thread's, then the first one's
        self._redraws_asked = 0
        self._redraw_by: float | None = None  # the latest time for a redraw that is due
        settled = self._settled(values)
        self.controls: dict[str, Any] = {name: widget_of(control) for name, (control, _) in settled.items()}
        self._rows = {name: row_of(self.controls[name], control) for name, (control, _) in settled.items()}
        for name, control in self.controls.items():
            setattr(self, name, control)
            control.observe(lambda change, name=name: self._move(name, change["old"]), "value")
        self._apply(settled)
        columns = [self._column(column) for column in specification.columns]
        if self.takes_pictures:
            self.upload = PictureUpload("Your picture")
            self.upload.observe(self._uploaded, "value")
            columns.append(self.upload)
        self.export = ExportButtons(specification.label, self._file)
        width = "minmax(min(380px, 100%), 1fr)"
        grid = f"repeat(auto-fit, {width})" if specification.beside else "minmax(0, 1fr)"
        self.grid = ipw.GridBox(layout=ipw.Layout(grid_template_columns=grid, width="100%"))
        row = ipw.HBox(columns, layout=ipw.Layout(flex_flow="row wrap"))
        self.sentence = ipw.Label(layout=ipw.Layout(display="none"))
        self.sentence.add_class("specviz-sentence")
        self.table_view = ipw.HTML(layout=ipw.Layout(display="none"))
        self.table_view.add_class("specviz-table")
        figure: list[ipw.Widget] = [self.panels, self.grid, self.sentence]
        if specification.place == "below":
            figure = [self.grid, self.sentence, self.panels]
        elif specification.place == "left":
            both = ipw.HBox([self.panels, self.grid])
            both.add_class("specviz-beside")
            figure = [both, self.sentence]
        parts: list[ipw.Widget] = [row, *figure]
        if specification.aside:
            both = ipw.HBox([self._rows[specification.aside], ipw.VBox([row, self.sentence, self.panels, self.grid])])
            both.add_class("specviz-aside")
            parts = [both]
        self.view = ExplorerView([*parts, self.table_view, self.export], self.still, self.summary, self.alt_text)
        self._own_widgets()
        if self.takes_pictures:
            self.load(source)
        else:
            self._refresh()

    # --- what a subclass may say otherwise

    def prepare(self, image: Tensor) -> Any:
        """Make the source of `compute` from a new, checked picture; ValueError if it will not do."""
        return Picture(luminance(image))

    def changes(self, name: str, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """How a control differs from its specification, given this source and the values of the controls before it."""
        return {}

    def implied(self, values: dict[str, Any]) -> dict[str, Any]:
        """The given values, and those that follow from them."""
        return values

    # --- controls

    @property
    def values(self) -> dict[str, Any]:
        """The controls' values in real units."""
        return {name: value_of(control) for name, control in self.controls.items()}

    def _settled(self, given: dict[str, Any]) -> dict[str, tuple[Control, Any]]:
        """Every control and its value: the given one, which must fit (ValueError), or the present one if it fits."""
        given, names = self.implied(given), self.specification.controls
        for name in given:
            if name not in names:
                raise ValueError(f"{type(self).__name__} has no control {name!r}; it has {', '.join(names)}")
        before = self.values if "controls" in vars(self) else {name: control.value for name, control in names.items()}
        settled: dict[str, tuple[Control, Any]] = {}
        for name in names:
            control = replace(names[name], **self.changes(name, {n: value for n, (_, value) in settled.items()}))
            own: Any = before[name]
            value = control.check(name, given[name]) if name in given else control.fit(own)
            settled[name] = control, value
        return settled

    def _apply(self, settled: dict[str, tuple[Control, Any]]) -> None:
        def holds(condition: tuple[str, Any] | None) -> bool:
            return condition is None or settled[condition[0]][1] == condition[1]

        with self._silently():
            for name, (control, value) in settled.items():
                move(self.controls[name], control, value, holds(control.enabled_when))
                if control.shown_when:
                    self._rows[name].layout.display = None if holds(control.shown_when) else "none"

    def _move(self, name: str, old: Any) -> None:
        """Follow a control that was moved; put it back if its new value does not fit."""

        def follow() -> None:
            try:
                settled = self._settled({name: value_of(self.controls[name])})
            except ValueError:
                with self._silently():
                    self.controls[name].value = old
                raise
            self._apply(settled)
            self._refresh()

        if not self._quiet:
            self._guarded(follow)

    def _column(self, column: Any) -> Any:
        if isinstance(column, str):
            return self._rows[column] if column in self._rows else getattr(self, column)  # such as buttons
        parts = [self._column(part) for part in column]
        if isinstance(column[0], str):
            return ipw.VBox(parts)
        return ipw.HBox(parts, layout=ipw.Layout(flex_flow="row wrap"))

    def set(self, **values: Any) -> None:
        """Set controls in real units, e.g. `set(beta=0.9, norm="ortho")`, and refresh once.

        Numbers may be Python's, NumPy's or tensors of one number. ValueError, and nothing set, if one does not fit.
        """
        self._apply(self._settled(values))
        self._refresh()

    def facts(self, **values: Any) -> dict[str, Any]:
        """Plain numbers for what is on screen, {} while there is nothing; or for the given values of controls.

        `facts(beta=1.0)` does not change the controls or the screen. ValueError for values that do not fit.
        """
        if not values or (self.takes_pictures and self.source is None):
            return self.shown.values() if self.shown else {}
        return self._computed({name: value for name, (_, value) in self._settled(values).items()}).values()

    # --- pictures

    def picture_source(self) -> Picture:
        """The source of `compute` from the picture on screen; ValueError while there is none."""
        if self.source is None:
            raise ValueError(f"{type(self).__name__} has no picture yet: give it one by load()")
        source: Picture = self.source
        return source

    def load(self, source: Any) -> None:
        """Show another picture: anything `datasets.photo_from` takes. A bad one shows a message instead."""
        self._guarded(lambda: self._take(photo_from(source)))

    def _take(self, image: Tensor, note: str = "") -> None:
        """Show a checked picture, with a remark on it."""
        self.source = self.prepare(image)
        self.image, self._note = image, note
        self._apply(self._settled({}))
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
        """Run a callback; the widget shows the message of an error, and the last good picture stays.

        The traceback goes to the log "specviz.widgets": as an error, or as information where a value was refused.
        """
        try:
            action()
        except ClosedError:
            raise
        except (ValueError, TypeError) as error:
            _log.info("%s: %s", self.specification.label, error, exc_info=True)
            self._say(str(error))
        except Exception as error:
            _log.exception("%s: this should not have happened", self.specification.label)
            self._say(f"This should not have happened: {type(error).__name__}: {error}")

    def _say(self, text: str) -> None:
        with turn():
            if not self.closed:
                self.panels.say(text)

    # --- the screen

    def _refresh(self) -> None:
        self._note_loop()
        if not self._quiet and not (self.takes_pictures and self.source is None):
            self._guarded(self._show)

    def _computed(self, values: Mapping[str, Any]) -> View:
        with one_thread(self._size()):
            return self.compute(self.source, **values)

    def _size(self) -> tuple[int, int] | None:
        """(H, W) of the picture that the frames show, where they may be reduced; None where frames are shown whole."""
        return self.source.size if isinstance(self.source, Picture) else None

    def _show(self) -> None:
        before, panels = self.shown, self._panels()
        self.shown = shown = self._computed(self.values)
        current = self.specification.controls
        controls = [accessible(self.controls[name], control) for name, control in current.items()]
        with self.panels.hold_sync():  # in one message: new panels do not fit the old frames
            if before is None or self._panels() != panels:
                self.panels.describe(self._panels())
            self.panels.show(
                shown.frames,
                None if before is not None and before.still is shown.still else shown.still,
                full_size=self._size(),
                facts=shown.rows(),
                markers=shown.markers,
                controls=[control for control in controls if control],
                message="",
                note=self._note,
                under_way=shown.under_way,
            )
        self.sentence.value = shown.sentence
        self.sentence.layout.display = None if shown.sentence else "none"
        self.table_view.value = shown.table._repr_html_() if shown.table else ""
        self.table_view.layout.display = None if shown.table else "none"
        if self.specification.at_once:
            self._redraw_lines()
        else:
            self._redraw_lines_soon()

    def _panels(self) -> list[Panel]:
        """The panels as they look now; none while there is nothing to show."""
        looks = self.shown.looks if self.shown else {}
        panels = self.specification.panels if self.shown else ()
        return [replace(panel, **looks.get(panel.key, {})) for panel in panels]

    def probe(self, panel: str, x: int, y: int) -> str:
        """The text for frame pixel (x, y) of a panel."""
        return self.shown.read(panel, x, y) if self.shown else ""

    def _pick(self, panel: str, x: int, y: int) -> None:
        if self.shown and panel in self.shown.pick:
            self.set(**self.shown.pick[panel](x, y))

    # --- curves

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

        plotly takes tens of milliseconds for a curve, which at every move would hold up the pictures. The timer belongs
        to this thread's event loop. It is never cancelled, since the next move may come on another thread: a timer that
        is no longer needed does nothing.
        """
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # a plain script: no browser waits
            loop = None
        if loop is None or not self.lines:
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

    def hold_curves(self, text: str) -> None:
        """Leave the curves out, on the screen, in stills and files, until `draw_curves()`; a text has their place."""
        with turn():
            self._held.value = text
            self._redraw_lines()

    def draw_curves(self) -> None:
        """Draw the curves that were held back."""
        with turn():
            if not self.closed and self._held.value:
                self._held.value = ""
                self._redraw_lines()

    def _redraw_lines(self) -> None:
        """Move the curves. A figure stays the same, with its zoom, as long as it has the same number of curves."""
        self._redraw_by = None
        if self.shown is None:
            return
        old, plots = list(self.lines), self._curves()
        del self.lines[len(plots) :]
        for i, plot in enumerate(plots):
            lines = self.lines[i] if i < len(self.lines) else None
            if lines is None or _bands(lines.plot) != _bands(plot):
                lines = LinesView(plot)
                receive_in_turn(lines.figure)
                self.lines[i : i + 1] = [lines]
                if self.panels.dark:
                    lines.set_dark(True)
            elif _looks(lines.plot) != _looks(plot):
                lines.redraw(plot)
            lines.show(plot)
        children = [self._held] if self._held.value else [lines.figure for lines in self.lines]
        if children != list(self.grid.children):
            self.grid.children = children
        for lines in old:
            if lines not in self.lines:
                lines.figure.close()

    def _theme(self, dark: bool) -> None:
        for lines in self.lines:
            lines.set_dark(dark)

    # --- in words, and as files

    def summary(self) -> str:
        """The facts in one line."""
        facts = "; ".join(f"{name} {value}" for name, value, *_ in self.panels.facts)
        return f"{type(self).__name__}: {facts} {self.sentence.value}".strip()

    def alt_text(self) -> str:
        """What the still picture shows, in words: pictures, curves, facts."""
        pictures = [f"{panel.title}: {panel.description}" for panel in self._panels()]
        facts = "; ".join(f"{name} {value}" for name, value, *_ in self.panels.facts)
        curves = [plot.alt_text() for plot in self._curves()]
        return " ".join([f"{self.specification.label}.", *pictures, *curves, self.sentence.value, facts]).strip()

    def description(self) -> dict[str, Any]:
        """All but pixels and points, in JSON's types: enough to draw the explorer with controls of another library.

        A fact that is NaN or infinite is given as a word.
        """
        controls = {name: control for name, (control, _) in self._settled({}).items()}
        return {
            "label": self.specification.label,
            "controls": [{"key": key, "kind": type(c).__name__.lower(), **asdict(c)} for key, c in controls.items()],
            "columns": self.specification.columns,
            "panels": [asdict(panel) for panel in self._panels()],
            "facts": [asdict(fact) | {"value": _json(fact.value)} for fact in (self.shown or View()).facts],
            "curves": [{"title": p.title, "x": p.x_title, "y": p.y_title} for p in self._curves()],
            "sentence": self.sentence.value,
        }

    def _curves(self) -> list[LinePlot]:
        return list(self.shown.curves()) if self.shown and not self._held.value else []

    def csv(self) -> str:
        """The facts and the curves' points in one table: a fact has a name and a value, a point x, y and its band."""
        rows: list[list[Any]] = [["plot", "curve", "x axis", "x", "y axis", "y", "low", "high"]]
        rows += [["facts", name, None, None, None, value, None, None] for name, value in self.facts().items()]
        if shown := self.shown and self.shown.table:
            for way, *values in shown.rows:
                names = zip(shown.columns[1:], values, strict=True)
                rows += [[shown.title, way, None, None, name, value, None, None] for name, value in names]
        for plot in self._curves():
            for line in plot.lines:
                columns = [line.x, line.y] if line.low is None else [line.x, line.y, line.low, line.high]
                for x, y, *band in zip(*columns, strict=True):
                    rows.append([plot.title, line.name, plot.x_title, x, plot.y_title, y, *(band or [None, None])])
        return table(rows)

    def _file(self, kind: Kind) -> bytes:
        return self.csv().encode() if kind == "csv" else self.still(kind)

    def still(self, kind: Literal["png", "svg"] = "png") -> bytes:
        """What is on screen as a picture file, for a reader without a kernel."""
        frames: dict[str, np.ndarray] = {}
        if self.shown:
            frames = dict(self.shown.still)
            for key, frame in self.shown.frames.items():
                frames[key] = frames[key] | frame.astype(np.uint8) << 7 if frame.dtype == np.bool_ else frame
        caption = "   ".join(f"{name}: {value}" for name, value, *_ in self.panels.facts)
        caption = "   ".join(filter(None, [self.sentence.value, caption]))
        arranged: Arranged = "row"
        if frames:
            arranged = "left" if self.specification.place == "left" else self.specification.arranged
        return still_picture(self._panels(), frames, self._curves(), caption or self.panels.message, kind, arranged)


def _json(value: Any) -> Any:
    """A fact's value for JSON, which has no numbers for infinity and NaN: they become the words "inf" and "nan"."""
    if isinstance(value, list | tuple):
        return [_json(part) for part in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _bands(plot: LinePlot) -> list[bool]:
    """For each curve, whether it has a band: curves and bands are the figure's traces."""
    return [line.low is not None for line in plot.lines]


def _looks(plot: LinePlot) -> list[Any]:
    """The properties that `LinesView.show` does not change."""
    lines = [(line.name, line.colour, line.dash, line.markers, line.symbol, line.thin) for line in plot.lines]
    return [plot.title, plot.x_title, plot.y_title, plot.x_range, plot.y_range, lines]


@contextmanager
def one_thread(size: tuple[int, int] | None) -> Iterator[None]:
    """One thread for a small picture: between two moves torch's other threads fall asleep, and waking takes longer."""
    with torch_threads(1 if size is None or size[0] * size[1] <= 2**19 else None):
        yield
