"""How long a displayed object lives: until it is closed, or its cell is run again and nobody else holds it."""

from __future__ import annotations

import ctypes
import gc
import sys
import weakref
from contextlib import suppress
from functools import wraps
from types import CellType, FrameType, FunctionType, MethodType
from typing import TYPE_CHECKING, Any

import ipywidgets as ipw
from ipywidgets.widgets import widget as registry

from specviz.widgets.lines import PlotView
from specviz.widgets.panels import PanelsView
from specviz.widgets.turns import in_turn, receive_in_turn, turn


class ClosedError(AttributeError, RuntimeError):
    """Something closed was used. An AttributeError, so that `hasattr` and notebooks' displays go on working."""


# Methods that a cell, a control, a timer or a training calls: none of these waits for another thread.
_TURNS = {"set", "load", "facts", "all_facts", "csv", "summary", "start", "clear", "reveal"}
_TURNS |= {"_refresh", "_move", "_redraw_lines", "_theme", "probe", "_pick", "_file", "still", "description"}


def _turn_of_an_open_one(method: Any) -> Any:
    @wraps(method)
    def alone(self: Displayed, *args: Any, **kwargs: Any) -> Any:
        with turn():
            self._check_open()
            return method(self, *args, **kwargs)

    return alone


def _constructor(method: Any) -> Any:
    @wraps(method)
    def alone(self: Displayed, *args: Any, **kwargs: Any) -> None:
        with turn():
            try:
                method(self, *args, **kwargs)
            except BaseException:
                self._close("it could not be made")  # the widgets that it has made so far would stay
                raise

    return alone


class Displayed:
    """What a cell displays with its `view`. It owns the widgets in its attributes and within the view.

    `close()` frees them, and all that was computed. A cell that is run again closes what its former run made, unless
    anything but IPython's history of results (`_`, `Out`) still refers to the object or to its view. In a script
    nothing is closed by itself, and ipywidgets keeps every widget: close what you no longer need.
    """

    view: ipw.Widget

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Let methods that others call take turns, whichever class defines them."""
        super().__init_subclass__(**kwargs)
        for name, method in list(vars(cls).items()):
            if name == "__init__":
                setattr(cls, name, _constructor(method))
            elif name in _TURNS and isinstance(method, FunctionType):
                setattr(cls, name, _turn_of_an_open_one(method))

    def __init__(self) -> None:
        _remember(self)

    if not TYPE_CHECKING:  # to a type checker every name would be there

        def __getattr__(self, name: str) -> Any:
            self._check_open()
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    @property
    def closed(self) -> bool:
        """Whether `close()` was called, here or because the cell was run again."""
        return "_closed_because" in vars(self)

    def close(self) -> None:
        """Take the view off the page and free all that belongs to it. A second call does nothing."""
        self._close("close() was called")

    @in_turn
    def _close(self, because: str) -> None:
        if self.closed:
            return
        self._before_close()
        self._closed_because = because
        self._close_widgets()
        for widget in self._widgets():
            if isinstance(widget, PanelsView):
                widget.frames = widget.still = {}
        vars(self).clear()
        self._closed_because = because
        _hand_back()

    def _before_close(self) -> None:
        """End what is under way; a subclass says how."""

    def _at_once(self) -> list[ipw.Widget]:
        """Widgets that need not wait for a turn: their callbacks compute nothing, or take a turn when they do."""
        return []

    def _check_open(self) -> None:
        if because := vars(self).get("_closed_because"):
            raise ClosedError(f"this {type(self).__name__} is closed, because {because}; make a new one")

    def _own_widgets(self) -> None:
        """Let the widgets receive messages in turn, and close them with the view."""
        at_once = self._at_once()
        for widget in self._widgets():
            if widget not in at_once:
                receive_in_turn(widget)
        own = weakref.ref(self)

        def gone(change: dict[str, Any]) -> None:
            displayed = own()
            if change["new"] is None and displayed is not None and not displayed.closed:
                with turn():
                    displayed._before_close()
                    displayed._close_widgets()

        self.view.observe(gone, "comm")

    def _widgets(self) -> list[ipw.Widget]:
        """The widgets that belong to it, the view first."""
        found: dict[int, ipw.Widget] = {}
        waiting: list[Any] = [vars(self).get("view"), *vars(self).values()]
        while waiting:
            thing = waiting.pop(0)
            if isinstance(thing, ipw.Widget):
                if id(thing) not in found:
                    found[id(thing)] = thing
                    waiting += [getattr(thing, name, None) for name in ("children", "layout", "style")]
                    waiting += [part for part in vars(thing).values() if isinstance(part, ipw.Widget)]
            elif isinstance(thing, dict):
                waiting += thing.values()
            elif isinstance(thing, list | tuple):
                waiting += thing
            elif isinstance(thing, PlotView):
                waiting.append(thing.figure)
        return list(found.values())

    def _close_widgets(self) -> None:
        for widget in self._widgets():
            widget.close()
            if isinstance(widget, ipw.Box):  # IPython's history holds a view, which must not hold all the rest
                widget.children = ()


def _hand_back() -> None:
    """Return freed memory to the system: glibc keeps what large tensors leave, 200 MiB after 15 large explorers."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


# --- cells that are run again

_hooked: weakref.WeakSet[Any] = weakref.WeakSet()  # the shells that tell when a cell has run
_made: list[weakref.ref[Displayed]] = []  # since the cell now running began
_by_cell: dict[str, list[weakref.ref[Displayed]]] = {}  # by the cell's id, or by its text where it has none


def _remember(displayed: Displayed) -> None:
    """Note which cell makes it, where there are cells."""
    shell = _shell()
    if shell is None:
        return
    with turn():
        if shell not in _hooked:
            _hooked.add(shell)
            shell.events.register("pre_run_cell", _before_cell)
            shell.events.register("post_run_cell", _after_cell)
        _made.append(weakref.ref(displayed))


def _shell() -> Any:
    ipython = sys.modules.get("IPython")
    return ipython and ipython.get_ipython()


def _before_cell(info: Any) -> None:
    _made.clear()  # by a callback, which belongs to no cell


def _after_cell(result: Any) -> None:
    """Close what the same cell made when it was run before."""
    cell = getattr(result.info, "cell_id", None) or result.info.raw_cell
    with turn():
        kept = [ref for ref in _by_cell.pop(cell, []) if _survives(ref)]
        kept += [ref for ref in _made if _is_open(ref)]
        _made.clear()
        if kept:
            _by_cell[cell] = kept


def _is_open(ref: weakref.ref[Displayed]) -> bool:
    displayed = ref()
    return displayed is not None and not displayed.closed


def _survives(ref: weakref.ref[Displayed]) -> bool:
    """Close what a former run made, unless somebody holds it."""
    displayed = ref()
    if displayed is None or displayed.closed:
        return False
    if is_held(displayed):
        return True
    displayed._close("its cell was run again")
    return False


def is_held(displayed: Displayed) -> bool:
    """Whether something refers to it, or to its view, besides its own parts, ipywidgets and IPython's history."""
    if not _holders(displayed):
        return False
    gc.collect()  # unreachable objects must not count as holders
    return bool(_holders(displayed))


def _holders(displayed: Displayed) -> list[Any]:
    """Objects that refer to it or its view, except its own parts, running functions' frames and IPython's history."""
    things = [displayed, vars(displayed).get("view")]
    known = _parts(displayed) | _keepers() | {id(things), id(vars(displayed)), id(registry._instances)}
    names = getattr(_shell(), "user_ns", None)
    holders = []
    for referrer in gc.get_referrers(*things):
        if referrer is names:
            holders += [name for name in names if _is_the_readers(name) and names[name] in things]
        elif id(referrer) not in known and not isinstance(referrer, FrameType):
            holders.append(referrer)
    return holders


def _is_the_readers(name: str) -> bool:
    """Whether a reader chose this name: it is none of IPython's own for results, such as `_`, `__`, `_12` or `_oh`."""
    bare = name.strip("_")
    return not name.startswith("_") or not (bare == "" or bare == "oh" or bare.isdigit())


def _keepers() -> set[int]:
    """Ids of the parts of IPython that keep a cell's result."""
    shell = _shell()
    if shell is None:
        return set()
    keepers = [shell.displayhook, shell.last_execution_result, shell.user_ns.get("_oh"), shell.user_ns_hidden]
    return {id(keeper) for keeper in keepers} | {id(vars(keeper)) for keeper in keepers[:2] if keeper is not None}


_PACKAGES = ("specviz", "ipywidgets", "traitlets", "anywidget", "plotly", "comm", "ipykernel.comm")


def _parts(displayed: Displayed) -> set[int]:
    """Ids of what it is made of: its attributes, widgets, their traits, comms and observers, and what these close over.

    Objects of other packages, such as a model that was passed in, are no parts: what they refer to counts as held.
    """
    found: set[int] = set()
    waiting: list[Any] = [displayed]
    while waiting:
        thing = waiting.pop()
        if id(thing) in found:
            continue
        if isinstance(thing, FunctionType):  # not its globals, which are whole modules
            inner: list[Any] = [thing.__closure__, thing.__defaults__, thing.__kwdefaults__, vars(thing)]
        elif isinstance(thing, MethodType):
            inner = [thing.__self__, thing.__func__]
        elif isinstance(thing, CellType):
            with suppress(ValueError):  # an empty cell
                waiting.append(thing.cell_contents)
            inner = []
        elif isinstance(thing, dict | list | tuple | set | frozenset) or thing is displayed or _is_ours(thing):
            inner = [part for part in gc.get_referents(thing) if gc.is_tracked(part) and not isinstance(part, type)]
        else:
            continue
        found.add(id(thing))
        waiting += inner
    return found


def _is_ours(thing: Any) -> bool:
    module = type(thing).__module__ or ""
    return any(module == package or module.startswith(f"{package}.") for package in _PACKAGES)
